"""Connections to the service, TLS where its URL says https. Runs under gevent."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit


def connect(url: str, server_name: str, timeout_s: float, *, alpn: str = "") -> socket.socket:
    """A connected socket without a time limit of its own. Raises OSError.

    `server_name` is whom TLS asks for; `alpn` the protocol that has to be agreed on.
    """
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    raw = socket.create_connection((parts.hostname or "", parts.port or (443 if is_tls else 80)), timeout_s)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not is_tls:
        raw.settimeout(None)
        return raw
    context = ssl.create_default_context()
    if alpn:
        context.set_alpn_protocols([alpn])
    secured = context.wrap_socket(raw, server_hostname=server_name.rpartition(":")[0] or server_name)
    if alpn and secured.selected_alpn_protocol() != alpn:
        secured.close()
        raise OSError(f"the server does not speak {alpn} over TLS")
    secured.settimeout(None)
    return secured
