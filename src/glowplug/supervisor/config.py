"""What the supervisor can be told, with every default.

Resolved once by the machine; nothing below reads `os.environ`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The folder that holds the `glowplug` package: units and the download child import it from there.
MACHINE_PATH = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class SupervisorConfig:
    """`host_env` is the machine's own environment: pods get a short list of it, downloads all of it.

    `shutdown_grace_s` bounds how long a stopping machine waits for its pods, whatever grace they ask for.
    `unroute_timeout_s` bounds how long a deleted pod waits for the router to let go of it.
    A container that dies is started again after `backoff_base_s`, doubling to `backoff_cap_s`; one that never
    became ready doubles on to `never_ready_cap_s`. A run of `backoff_reset_s` forgives earlier failures.
    The warm pool begins `warm_pool_delay_s` after the machine, or later where pods are being started then; besides
    what a unit names itself, its zygotes import `warm_pool_preload`, as far as that is installed.
    """

    data_dir: Path
    python: str
    host_env: Mapping[str, str] = field(default_factory=dict)
    machine_path: Path = MACHINE_PATH
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 60.0
    never_ready_cap_s: float = 300.0
    backoff_reset_s: float = 600.0
    unroute_timeout_s: float = 10.0
    shutdown_grace_s: float = 10.0
    max_termination_grace_s: float = 3600.0
    config_retry_s: float = 10.0
    log_max_bytes: int = 10 * 1024 * 1024
    log_files: int = 3
    has_warm_pool: bool = True
    warm_pool_delay_s: float = 1.0
    # `module`, or `module:function` to be called: what our serving library does only when a server starts.
    warm_pool_preload: tuple[str, ...] = ("glowplug.serving.server:rehearse",)

    @property
    def kubeconfig(self) -> Path:
        """How the machine's API is reached, which the machine writes."""
        return self.data_dir / "kubeconfig"

    @property
    def pods_dir(self) -> Path:
        """One folder a pod, named by its uid: volumes and working directory."""
        return self.data_dir / "pods"

    @property
    def logs_dir(self) -> Path:
        """`<namespace>_<pod>_<uid>/<container>/<restart count>.log`, as on a Kubernetes node."""
        return self.data_dir / "logs"

    @property
    def volumes_dir(self) -> Path:
        """`<namespace>/<claim>`: what persistent volume claims hold; never deleted by the supervisor."""
        return self.data_dir / "volumes"

    @property
    def run_dir(self) -> Path:
        """What lives no longer than the machine."""
        return self.data_dir / "run"

    @property
    def starts_dir(self) -> Path:
        """One named pipe a running container, through which its server tells how far its start is."""
        return self.run_dir / "starts"

    @property
    def groups_dir(self) -> Path:
        """One file a running process group, for the machine that comes after a crash."""
        return self.run_dir / "groups"
