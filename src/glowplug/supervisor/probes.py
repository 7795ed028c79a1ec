"""Probes: what a container's spec asks for, and what a run of answers means. Pure; the asking is in `probing`.

Until a container has been ready once, readiness is asked for far more often than its period says, as Knative does for
probes of its own: a container that is up after 300 ms should be seen at 300 ms, not at the next ten-second mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from glowplug.supervisor.failures import CREATE_ERROR, CannotStart
from glowplug.supervisor.rewrite import Rewriter

# Asking again after 5 % of the time waited so far sees readiness at most 5 % late, at a cost that shrinks.
EAGER_SHARE = 0.05
EAGER_FIRST_S = 0.01
EAGER_LAST_S = 0.5
# An exec probe is a process each time; so is its cost.
EAGER_EXEC_S = 0.5


@dataclass(frozen=True)
class HttpGet:
    """GET, 200 to 399 is success. `headers` as (name, value)."""

    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    is_tls: bool = False

    def __str__(self) -> str:
        return f"GET {'https' if self.is_tls else 'http'}://{self.host}:{self.port}{self.path}"


@dataclass(frozen=True)
class TcpSocket:
    """A connection that opens is success."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"dial tcp {self.host}:{self.port}"


@dataclass(frozen=True)
class Exec:
    """Exit code 0 is success."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"exec {self.argv[0]}"


@dataclass(frozen=True)
class Grpc:
    """`grpc.health.v1.Health/Check` answering SERVING is success."""

    port: int
    service: str

    def __str__(self) -> str:
        return f"grpc 127.0.0.1:{self.port}"


Action = HttpGet | TcpSocket | Exec | Grpc


@dataclass(frozen=True)
class Probe:
    """One probe with Kubernetes' defaults. `is_repeated` is False where being ready once is enough."""

    action: Action
    initial_delay_s: float = 0.0
    period_s: float = 10.0
    timeout_s: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    is_repeated: bool = True


@dataclass(frozen=True)
class Probes:
    """A container's probes. Without `readiness` it is ready when it has started."""

    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None


@dataclass(frozen=True)
class Tally:
    """Consecutive answers so far. `verdict` is None until one of the thresholds is reached."""

    successes: int = 0
    failures: int = 0
    verdict: bool | None = None


def observe(probe: Probe, tally: Tally, is_success: bool) -> Tally:
    """The tally after one more answer: a verdict changes only at its threshold."""
    if is_success:
        successes = tally.successes + 1
        is_reached = successes >= probe.success_threshold
        return replace(tally, successes=successes, failures=0, verdict=True if is_reached else tally.verdict)
    failures = tally.failures + 1
    is_reached = failures >= probe.failure_threshold
    return replace(tally, successes=0, failures=failures, verdict=False if is_reached else tally.verdict)


def eager_delay_s(probe: Probe, waited_s: float) -> float:
    """How long to wait before asking again a container that has not been ready yet, never more than its period."""
    first = EAGER_EXEC_S if isinstance(probe.action, Exec) else EAGER_FIRST_S
    return min(max(first, waited_s * EAGER_SHARE), max(EAGER_LAST_S, first), probe.period_s)


def parse_probes(
    container: Mapping[str, Any],
    http_port: int | None,
    unit_readiness: str | None,
    rewriter: Rewriter,
    *,
    has_default: bool = True,
) -> Probes:
    """The container's probes with real ports. Raises CannotStart for a probe that says nothing that can be asked.

    Without a readiness probe the default is Knative's, a TCP connection, once; where the unit declares a readiness
    path, that is asked for instead, and goes on being asked for. A pod that is no revision's and names no port has no
    default (`has_default`): as in Kubernetes it is ready when it runs.
    """
    parsed = {
        kind: _parse(container, kind, http_port, rewriter)
        for kind in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    readiness = parsed["readinessProbe"]
    if readiness is None and http_port is not None:
        if unit_readiness is not None:
            readiness = Probe(HttpGet("127.0.0.1", http_port, unit_readiness), timeout_s=5.0)
        elif has_default:
            readiness = Probe(TcpSocket("127.0.0.1", http_port), is_repeated=False)
    return Probes(parsed["startupProbe"], readiness, parsed["livenessProbe"])


def _parse(
    container: Mapping[str, Any], kind: str, http_port: int | None, rewriter: Rewriter
) -> Probe | None:
    spec = container.get(kind)
    if spec is None:
        return None
    action = _action(spec, _Target(container, kind, http_port, rewriter))
    # Knative writes 0 for "as often as it takes"; Kubernetes' default period is 10 s.
    return Probe(
        action,
        initial_delay_s=float(spec.get("initialDelaySeconds") or 0),
        period_s=float(spec.get("periodSeconds") or 10),
        timeout_s=float(spec.get("timeoutSeconds") or 1),
        success_threshold=int(spec.get("successThreshold") or 1),
        failure_threshold=int(spec.get("failureThreshold") or 3),
    )


@dataclass(frozen=True)
class _Target:
    """Where a probe of this container goes, and how its errors name it."""

    container: Mapping[str, Any]
    kind: str
    http_port: int | None
    rewriter: Rewriter

    def port(self, named: Any) -> int:
        """A real port for a number, a port's name, or nothing (the container's own)."""
        for declared in self.container.get("ports") or ():
            if isinstance(named, str) and declared.get("name") == named:
                return self.rewriter.port(int(declared["containerPort"]))
        if named in (None, 0, ""):
            if self.http_port is None:
                raise self.refused("names no port, and the container has none")
            return self.http_port
        if not str(named).isdecimal():
            raise self.refused(f'names port "{named}", which is not among the container\'s ports')
        return self.rewriter.port(int(named))

    def refused(self, why: str) -> CannotStart:
        return CannotStart(CREATE_ERROR, f'{self.kind} of container "{self.container["name"]}" {why}')


def _action(spec: Mapping[str, Any], target: _Target) -> Action:
    if spec.get("exec") is not None:
        words = spec["exec"].get("command") or ()
        if not words:
            raise target.refused("has an exec without a command")
        return Exec(tuple(target.rewriter.text(word) for word in words))
    if spec.get("grpc") is not None:
        grpc = spec["grpc"]
        return Grpc(target.port(grpc.get("port")), grpc.get("service") or "")
    if spec.get("httpGet") is not None:
        return _http_get(spec["httpGet"], target)
    # Knative fills in an empty tcpSocket where nothing is named.
    tcp = spec.get("tcpSocket") or {}
    return TcpSocket(tcp.get("host") or "127.0.0.1", target.port(tcp.get("port")))


def _http_get(spec: Mapping[str, Any], target: _Target) -> HttpGet:
    headers = tuple((each["name"], each.get("value", "")) for each in spec.get("httpHeaders") or ())
    path = spec.get("path") or "/"
    return HttpGet(
        host=spec.get("host") or "127.0.0.1",
        port=target.port(spec.get("port")),
        path=path if path.startswith("/") else "/" + path,
        headers=headers,
        is_tls=str(spec.get("scheme") or "HTTP").upper() == "HTTPS",
    )
