"""Addresses as KServe writes them for a transformer."""

from __future__ import annotations


def host_and_port(text: str, *, use_ssl: bool) -> tuple[str, int]:
    """Host and port of `name[:port]`, `http://name[:port]` or `[v6]:port`."""
    text = (text.partition("://")[2] or text).rstrip("/")
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit():
        return host.strip("[]"), int(port)
    return text.strip("[]"), 443 if use_ssl else 80
