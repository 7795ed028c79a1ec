"""Where the URL of a payload logger leads on this machine. Pure.

The names that a URL has in a cluster lead to the machine's own: those of Brokers to its broker, those of services to
its ingress. KServe's own default, `http://default-broker`, is the name that the Broker `default` of the pod's namespace
once had; so that is where it leads.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from glowplug.local.jobsinks import PREFIX
from glowplug.payloads.teller import Sink
from glowplug.spec.logger import DEFAULT_URL

_CLUSTER_SUFFIXES = (".svc.cluster.local", ".svc")
_BROKERS = ("broker-ingress.knative-eventing", "kafka-broker-ingress.knative-eventing")
_JOB_SINKS = "job-sink.knative-eventing"


class Sinks:
    """`ingress` and `broker` are URLs without a path."""

    def __init__(self, ingress: str, broker: str) -> None:
        self._ingress = ingress.rstrip("/")
        self._broker = broker.rstrip("/")
        self.find = lru_cache(1024)(self._find)

    def _find(self, namespace: str, url: str) -> Sink:
        """The sink of a logger in that namespace."""
        if url.rstrip("/") == DEFAULT_URL:
            return Sink(f"{self._broker}/{namespace}/default", is_batched=True)
        parts = urlsplit(url)
        host, path = (parts.hostname or "").lower(), parts.path + (f"?{parts.query}" if parts.query else "")
        name = host
        for suffix in _CLUSTER_SUFFIXES:
            name = name.removesuffix(suffix)
        if name in _BROKERS:
            return Sink(self._broker + path, is_batched=True)
        if name == _JOB_SINKS:
            return Sink(self._broker + PREFIX.rstrip("/") + path)
        is_brokers = url == self._broker or url.startswith(f"{self._broker}/")
        if is_brokers:
            return Sink(url, is_batched=not url.startswith(self._broker + PREFIX))
        service, _, rest = name.partition(".")
        is_plain = parts.scheme == "http" and parts.port in (None, 80)
        is_short = bool(rest) and "." not in rest and rest != "localhost"
        if name != host or (is_plain and is_short):
            # `<service>.<namespace>`, as a cluster knows it. A short name of the outer world is so taken for a service
            # where it is asked by plain HTTP on port 80.
            return Sink(f"{self._ingress}/serving/{rest or namespace}/{service}{path}")
        return Sink(url)
