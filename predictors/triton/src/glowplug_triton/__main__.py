"""The command line of the unit: KServe's flags become tritonserver's, which then runs as a child of this process.

Signals, the exit code and the output are Triton's own: SIGTERM lets requests in flight finish.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glowplug.errors import GlowplugError
from glowplug.triton.home import Triton, backends_of, find_triton
from glowplug.triton.refusals import refuse_blanks
from glowplug.triton.server import MODES, ServerConfig, command, environment
from glowplug_triton.child import run
from glowplug_triton.folder import needs_completion, repository_of, without_blanks

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# One of these is there where a container was given a GPU.
_GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/nvidia0"))


@dataclass(frozen=True)
class Ports:
    """Real numbers, all different."""

    http: int
    grpc: int
    metrics: int


def main(argv: Sequence[str] | None = None) -> int:
    """Runs tritonserver until it ends; the exit code of the process."""
    parser = _parser()
    options, extra = parser.parse_known_args(argv)
    if any(not word.startswith("--") for word in extra):
        parser.error(f"unexpected {' '.join(extra)}; flags of tritonserver's own are written --name=value")
    try:
        triton = find_triton(os.environ)
        words = _prepare(triton, options, tuple(extra))
    except GlowplugError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    return run(words, environment(triton, os.environ))


def _prepare(triton: Triton, options: argparse.Namespace, extra: tuple[str, ...]) -> list[str]:
    """The command line of tritonserver, its repository being in place. Raises GlowplugError."""
    if triton.backends:
        refuse_blanks(
            Path(triton.backends), "move it by `glowplug triton install` with $GLOWPLUG_TRITON_HOME"
        )
    has_gpu = any(path.exists() for path in _GPU_FILES)
    host = os.environ.get("HOST") or "0.0.0.0"
    ports = choose_ports(options, os.environ, host)
    repository, what = repository_of(
        Path(options.model_dir), options.model_name, backends=backends_of(triton), has_gpu=has_gpu
    )
    print(
        f"{options.model_dir} is {what}; HTTP {host}:{ports.http}, gRPC {host}:{ports.grpc}, "
        f"metrics http://{host}:{ports.metrics}/metrics",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    config = ServerConfig(
        str(without_blanks(repository)), host, ports.http, ports.grpc, ports.metrics,
        mode=options.model_control_mode, poll_s=options.repository_poll_s,
        exit_timeout_s=options.drain_timeout_s, has_gpu=has_gpu,
        is_completed=needs_completion(repository), extra=extra,
    )  # fmt: skip
    return command(triton, config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glowplug_triton",
        description="Serves a Triton model repository, or a folder with a model. "
        "Other flags (--name=value) go to tritonserver as they are.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model_name", default="model", help="name of a model that is no repository (default: %(default)s)")
    add("--model_dir", default="/mnt/models", help="default: %(default)s")
    add("--http_port", type=int, default=None, help="default: $PORT, else 8080; 0 is any free port")
    add("--grpc_port", type=int, default=None, help="default: $GRPC_PORT, else 8081; 0 is any free port")
    add(
        "--metrics_port", type=int, default=None,
        help="default: 8002; any free port where $HOST is loopback, as pods of the local machine share its ports",
    )  # fmt: skip
    add(
        "--model_control_mode", choices=MODES, default="poll",
        help="poll serves new versions by itself, explicit on request (default: %(default)s)",
    )  # fmt: skip
    add("--repository_poll_s", type=int, default=5, help="seconds between polls (default: %(default)s)")
    add(
        "--drain_timeout_s",
        type=int,
        default=30,
        help="for requests in flight, on SIGTERM (default: %(default)s)",
    )
    return parser


def choose_ports(options: argparse.Namespace, env: Mapping[str, str], host: str) -> Ports:
    """Flag > variable > default. Triton takes no 0 for any free port, so a free one is looked for here."""
    metrics = options.metrics_port
    if metrics is None:
        metrics = 0 if host in _LOOPBACK else 8002
    return Ports(
        _real(options.http_port, env, "PORT", 8080, host),
        _real(options.grpc_port, env, "GRPC_PORT", 8081, host),
        metrics or _free_port(host),
    )


def _real(flag: int | None, env: Mapping[str, str], variable: str, default: int, host: str) -> int:
    text = env.get(variable, "")
    if flag is None and text and not text.isdecimal():
        raise GlowplugError(f"${variable} = {text!r}, expected a port number")
    port = flag if flag is not None else int(text or default)
    return port or _free_port(host)


def _free_port(host: str) -> int:
    with socket.socket() as listener:
        listener.bind((host if host in _LOOPBACK[:2] else "127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
