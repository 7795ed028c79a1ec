"""The router's configuration: every default of it is here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RouterConfig:
    """`directory` is the router's own: it is created with mode 0700 and its `xds` folder is emptied at the start.

    `port` 0 takes a free one. All times are in seconds.
    """

    directory: Path
    port: int = 8080
    host: str = "127.0.0.1"
    # Worker threads of Envoy. One is enough for some 15,000 requests/s; each has its own queues and limits.
    concurrency: int = 1

    # Changes of the table within this time become one update of Envoy.
    debounce_s: float = 0.01
    start_timeout_s: float = 30.0
    # How long Envoy may take to accept an update before it is tried again, and `settled` gives up.
    settle_timeout_s: float = 5.0
    # On shutdown: how long requests in flight may go on after the ingress has stopped accepting.
    drain_timeout_s: float = 5.0
    restart_backoff_s: float = 0.1
    max_restart_backoff_s: float = 5.0

    # A pod that goes, and takes a limited number of requests at a time, is first given those that wait for it.
    queue_timeout_s: float = 30.0
    # Requests that wait for a free place in a revision's pods; the one after them is answered 503.
    max_pending_requests: int = 1024
    max_connections: int = 4096
    max_requests: int = 16384
    connect_timeout_s: float = 5.0
    # Shorter than the keep-alive of the servers in use (uvicorn and Node.js: 5 s), so that Envoy, not the
    # server, ends an idle connection: a request that meets a closing one cannot be retried safely.
    upstream_idle_timeout_s: float = 3.0
    # A request that a dead pod did not take goes to another one. With the back-off between them the last try is
    # some 0.3 s after the first: by then also a machine under load has taken the pod out, and the request waits.
    max_retries: int = 5
    # A revision's clusters stay for so long after its last route: longer than a request is between two tries.
    cluster_linger_s: float = 1.0
    # A pod that takes no connection gets no requests for so long, unless it is restarted before.
    ejection_s: float = 1.0
    ejection_check_interval_s: float = 5.0

    access_log_max_bytes: int = 16 * 1024 * 1024
    access_log_check_interval_s: float = 5.0
