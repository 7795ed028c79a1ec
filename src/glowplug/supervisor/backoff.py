"""When a container that exited is started again. Pure.

Kubernetes: 10 s, doubling to 5 minutes, forgiven after 10 minutes of running; here the base is 1 s, as a developer
waits for it. A container that died after it had been ready is restarted at once, then with a back-off that ends at a
minute. One that never became ready doubles on to five minutes, so that a broken start all but stops, with its last
lines on show, yet heals by itself if what it waited for (a database, say) comes up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

ALWAYS, ON_FAILURE, NEVER = "Always", "OnFailure", "Never"


@dataclass(frozen=True)
class BackoffPolicy:
    """Seconds."""

    base_s: float = 1.0
    cap_s: float = 60.0
    never_ready_cap_s: float = 300.0
    reset_s: float = 600.0


@dataclass(frozen=True)
class Run:
    """One run of a container that ended. `was_ready` at any time; `ran_s` from start to exit."""

    exit_code: int
    ran_s: float
    was_ready: bool


@dataclass(frozen=True)
class History:
    """Failures in a row."""

    failures: int = 0


@dataclass(frozen=True)
class Restart:
    """Start again after `after_s`."""

    after_s: float
    reason: str


@dataclass(frozen=True)
class Stay:
    """The restart policy leaves it ended."""

    is_success: bool
    reason: str


Decision = Restart | Stay


def decide(
    policy: BackoffPolicy, restart_policy: str, history: History, run: Run
) -> tuple[History, Decision]:
    """What follows after `run`."""
    if restart_policy == NEVER or (restart_policy == ON_FAILURE and run.exit_code == 0):
        return history, Stay(run.exit_code == 0, f"restartPolicy {restart_policy}")
    failures = 0 if run.ran_s >= policy.reset_s else history.failures
    cap_s = policy.cap_s if run.was_ready else policy.never_ready_cap_s
    # What had been serving is missed now: its first restart is at once, as in Kubernetes.
    doublings = failures - 1 if run.was_ready else failures
    # 2**64 base units is past any cap, and keeps the power finite.
    after_s = min(policy.base_s * 2 ** min(doublings, 64), cap_s) if doublings >= 0 else 0.0
    return replace(history, failures=failures + 1), Restart(after_s, _reason(run))


def _reason(run: Run) -> str:
    if run.was_ready:
        return f"died after being ready: exit code {run.exit_code} after {run.ran_s:.1f}s"
    return f"never became ready: exit code {run.exit_code} after {run.ran_s:.1f}s"
