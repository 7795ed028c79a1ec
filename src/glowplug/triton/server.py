"""The command line and the environment of a tritonserver. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from glowplug.triton.home import Triton

MODES = ("poll", "explicit", "none")


@dataclass(frozen=True)
class ServerConfig:
    """What a server is told.

    Mode `poll` serves what is put in the repository, and refuses to be told what to load by whoever reaches its
    ports; `explicit` loads on request, which tuning needs.
    """

    repository: str
    host: str = "0.0.0.0"
    http_port: int = 8080
    grpc_port: int = 8081
    metrics_port: int = 8002
    mode: str = "poll"
    poll_s: int = 5
    # On SIGTERM requests in flight have this long.
    exit_timeout_s: int = 30
    has_gpu: bool = False
    # What mode `explicit` loads at the start.
    models: tuple[str, ...] = ("*",)
    # False where every configuration is complete.
    is_completed: bool = True
    extra: tuple[str, ...] = ()


def command(triton: Triton, config: ServerConfig) -> list[str]:
    """The words of the command line."""
    words = [
        triton.server,
        f"--model-repository={config.repository}",
        f"--http-address={config.host}",
        f"--http-port={config.http_port}",
        f"--grpc-address={config.host}",
        f"--grpc-port={config.grpc_port}",
        f"--metrics-address={config.host}",
        f"--metrics-port={config.metrics_port}",
        f"--allow-gpu-metrics={'true' if config.has_gpu else 'false'}",
        f"--exit-timeout-secs={config.exit_timeout_s}",
        f"--model-control-mode={config.mode}",
        # The ports open when every model is loaded, and a model that cannot be loaded at the start ends the server.
        # Strictly, it would not be ready either while a model is replaced, or after a new version that is broken,
        # though it serves the old one: traffic would stop for nothing.
        "--strict-readiness=false",
    ]
    if config.mode == "poll":
        words.append(f"--repository-poll-secs={config.poll_s}")
    if config.mode == "explicit":
        words += [f"--load-model={model}" for model in config.models]
    if not config.is_completed:
        words.append("--disable-auto-complete-config")
    if triton.backends:
        words.append(f"--backend-directory={triton.backends}")
    return [*words, *config.extra]


def environment(triton: Triton, env: Mapping[str, str]) -> dict[str, str]:
    """`env` for the server: its libraries and its Python first, and nothing of the caller's Python.

    The Python backend's processes inherit it: with the caller's PYTHONPATH they would import packages of another
    interpreter.
    """
    if not triton.python_bin:
        return dict(env)
    kept = {key: value for key, value in env.items() if not key.startswith("PYTHON") and key != "VIRTUAL_ENV"}
    return {
        **kept,
        "PATH": _joined(triton.python_bin, env.get("PATH", os.defpath)),
        "LD_LIBRARY_PATH": _joined(*triton.libraries, env.get("LD_LIBRARY_PATH", "")),
    }


def perf_environment(triton: Triton, env: Mapping[str, str]) -> dict[str, str]:
    """`env` for perf_analyzer. It honours proxies, and what it measures is here."""
    proxies = {"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}
    kept = {key: value for key, value in env.items() if key not in proxies}
    if triton.perf_libraries:
        kept["LD_LIBRARY_PATH"] = _joined(*triton.perf_libraries, env.get("LD_LIBRARY_PATH", ""))
    return kept


def _joined(*parts: str) -> str:
    return os.pathsep.join(part for part in parts if part)
