"""`up`, `down`, `status`: the machine's own life."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

import psutil

from glowplug.cli import output
from glowplug.cli.kube import Cluster, connect
from glowplug.errors import ConfigError, DataDirHeld, GlowplugError
from glowplug.local.config import MachineConfig
from glowplug.local.datadir import DataDir
from glowplug.spec.kinds import INFERENCE_SERVICE

_START_TIMEOUT_S = 60.0
_LAST_LINES = 20
# How the supervisor writes the process id of a container.
_PROCESS = "process://"


def up(config: MachineConfig) -> None:
    """Run the machine in the foreground until it is told to stop."""
    from glowplug.local.machine import run

    _require_units(config)

    def announce(description: dict[str, Any]) -> None:
        _announce(DataDir.at(config.data_dir), description)

    run(config, announce)


def up_detached(config: MachineConfig) -> None:
    """Start the machine in the background; returns once it is up."""
    directory = DataDir.at(config.data_dir)
    _require_units(config)
    if (pid := directory.holder()) is not None:
        _announce(directory, _wait_described(directory, pid), f"the machine runs already (process {pid})")
        return
    _announce(directory, start_detached(config))


def data_dir_flag(data_dir: pathlib.Path) -> str:
    """What a next command needs to find this machine again: nothing where it is the default one."""
    return "" if data_dir == MachineConfig().data_dir else f" --data-dir {shlex.quote(str(data_dir))}"


def _require_units(config: MachineConfig) -> None:
    for folder in config.unit_dirs:
        if not folder.is_dir():
            raise ConfigError(f"--units {folder}: no such folder")


def start_detached(config: MachineConfig) -> dict[str, Any]:
    """Start the machine in the background; what it says of itself once it is up."""
    directory = DataDir.at(config.data_dir)
    if (pid := directory.holder()) is not None:
        raise DataDirHeld(
            f"the data directory {directory.root} is held by the machine with process id {pid}",
            hint=f"use it as it is, or stop it with `glowplug down{data_dir_flag(directory.root)}`",
        )
    directory.create()
    command = [
        sys.executable, "-m", "glowplug.cli.main", "up",
        "--data-dir", str(directory.root),
        "--ingress-port", str(config.ingress_port),
        "--api-port", str(config.api_port),
        "--broker-port", str(config.broker_port),
        "--domain", config.domain,
        "--tls" if config.is_tls else "--no-tls",
        "--warm-pool" if config.has_warm_pool else "--no-warm-pool",
        *(part for folder in config.unit_dirs for part in ("--units", str(folder))),
    ]  # fmt: skip
    try:
        log = directory.log.open("wb")
    except OSError as error:
        raise directory.unusable(error) from error
    with log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    return _wait_until_up(directory, process)


def down(data_dir: pathlib.Path, timeout_s: float) -> None:
    """Stop the machine and wait until everything of it is gone."""
    directory = DataDir.at(data_dir)
    pid = directory.holder()
    if pid is None:
        output.done(f"no machine runs on {output.relative(directory.root)}")
        return
    with output.step(f"stopping the machine (process {pid})"):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        # The directory is let go a moment before the process ends.
        while directory.holder() == pid or _is_running(pid):
            if time.monotonic() > deadline:
                raise GlowplugError(
                    f"process {pid} has not stopped within {timeout_s:.0f} s",
                    hint=f"`kill -9 {pid}` ends it; acknowledged state survives, and its pods end with it",
                )
            time.sleep(0.05)


def _is_running(pid: int) -> bool:
    """Whether the process has yet to end; one that has, and that nobody has waited for, is a zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def print_status(data_dir: pathlib.Path, form: str) -> None:
    """The machine's ports, URLs, process ids and InferenceServices; exit code 1 where none runs."""
    directory = DataDir.at(data_dir)
    description = directory.described()
    if description is None:
        if form == "json":
            print(json.dumps({"running": False, "data_dir": str(directory.root)}))
            raise SystemExit(1)
        raise ConfigError(
            f"no machine runs on {directory.root}",
            hint="start one with `glowplug up`, or name it: --data-dir",
        )
    cluster = connect(directory.kubeconfig, None, None)
    services, pods = _inference_services(cluster), _pods(cluster)
    if form == "json":
        status = {"running": True, **description, "pods": pods, "inference_services": services}
        print(json.dumps(status, indent=2))
        return
    print(f"machine    up since {description['started']}, process {description['pid']}")
    print(f"ingress    {description['urls']['ingress']}")
    print(f"API        {description['urls']['api']}")
    print(f"broker     {description['urls']['broker']}")
    print(f"kubeconfig {output.relative(directory.kubeconfig)}")
    print(f"processes  {', '.join(f'{name} {pid}' for name, pid in description['processes'].items())}")
    for pod, containers in pods.items():
        print(
            f"pod        {pod}: {', '.join(f'{name} {pid}' for name, pid in containers.items()) or 'not running'}"
        )
    for service in services:
        print(f"{service['namespace']}/{service['name']}  ready={service['ready']}  {service['url'] or ''}")


def _inference_services(cluster: Cluster) -> list[dict[str, Any]]:
    listed = cluster.get(f"/apis/{INFERENCE_SERVICE.api_version}/{INFERENCE_SERVICE.plural}")["items"]
    return [
        {
            "namespace": item["metadata"]["namespace"],
            "name": item["metadata"]["name"],
            "url": (item.get("status") or {}).get("url"),
            "ready": next(
                (
                    condition["status"]
                    for condition in (item.get("status") or {}).get("conditions", ())
                    if condition["type"] == "Ready"
                ),
                "Unknown",
            ),
        }
        for item in listed
    ]


def _pods(cluster: Cluster) -> dict[str, dict[str, int]]:
    """`namespace/pod` → container → process id, of all containers that run."""
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": {
            status["name"]: int(status["containerID"].removeprefix(_PROCESS))
            for status in (pod.get("status") or {}).get("containerStatuses", ())
            if "running" in status.get("state", {}) and status.get("containerID", "").startswith(_PROCESS)
        }
        for pod in cluster.get("/api/v1/pods")["items"]
    }


def _wait_until_up(directory: DataDir, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        description = directory.described()
        if description is not None and description["pid"] == process.pid:
            return description
        if process.poll() is not None:
            raise GlowplugError(f"the machine did not start:\n{_last_lines(directory.log)}")
        time.sleep(0.02)
    process.terminate()
    raise GlowplugError(
        f"the machine was not up within {_START_TIMEOUT_S:.0f} s:\n{_last_lines(directory.log)}"
    )


def _wait_described(directory: DataDir, pid: int) -> dict[str, Any]:
    """What the running machine says of itself, which it does once it is up."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while (description := directory.described()) is None:
        if directory.holder() is None:
            raise GlowplugError(f"the machine (process {pid}) has ended", hint="run `glowplug up` again")
        if time.monotonic() > deadline:
            raise GlowplugError(
                f"the machine (process {pid}) was not up within {_START_TIMEOUT_S:.0f} s",
                hint=f"stop it with `glowplug down{data_dir_flag(directory.root)}`",
            )
        time.sleep(0.02)
    return description


def _last_lines(path: pathlib.Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    if not lines:
        # A full disk takes no message about a full disk.
        return f"    {path} is empty; `glowplug up` without --detach shows what is wrong"
    return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:])


def _announce(directory: DataDir, description: dict[str, Any], state: str = "") -> None:
    output.done(state or f"the machine is up (process {description['pid']})")
    output.done(
        f"ingress at {description['urls']['ingress']}, Kubernetes API at {description['urls']['api']}"
    )
    output.next_steps(
        f"export KUBECONFIG={shlex.quote(str(directory.kubeconfig))}",
        "kubectl apply -f my-inferenceservice.yaml",
        "kubectl get isvc",
    )
