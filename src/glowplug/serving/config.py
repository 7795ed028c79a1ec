"""The server's settings, resolved once: flag > environment > default.

The flags are KServe's, so that the args of its runtimes work.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from glowplug.errors import ConfigError
from glowplug.spec import names
from glowplug.wire.cloudevents import ResponsePolicy

log = logging.getLogger(__name__)

PROTOCOLS = ("v1", "v2", "grpc-v2")
LOG_LEVELS = ("debug", "info", "warning", "error")

# Flags of kserve.ModelServer that change nothing here, and why.
WITHOUT_EFFECT = {
    "max_threads": "gRPC calls are served by the event loop",
    "max_asyncio_workers": "worker threads are used by models that ask for them only",
    "enable_docs_url": "there is no Swagger page",
    "enable_latency_logging": "latencies are in /metrics",
    "configure_logging": "see --log_level",
    "log_config_file": "see --log_level",
    "access_log_format": "see --log_level=debug",
    "protocol": "see --predictor_protocol",
    "nthread_per_worker": "there is one worker",
}


@dataclass(frozen=True)
class PredictorConfig:
    """How a transformer reaches its predictor. `host` is `name[:port]`; empty means that there is none."""

    host: str = ""
    protocol: str = "grpc-v2"
    use_ssl: bool = False
    timeout_s: float = 60.0
    retries: int = 0
    is_health_checked: bool = False
    max_message_bytes: int = 256 * 2**20
    # The pair that the predictor must be of; empty means any.
    pair: str = ""


@dataclass(frozen=True)
class ServerConfig:
    """Everything that `serve` needs. A port of 0 is any free one."""

    model_name: str = "model"
    model_dir: str = "/mnt/models"
    host: str = "0.0.0.0"
    http_port: int = 8080
    grpc_port: int = 8081
    enable_grpc: bool = True
    workers: int = 1
    event_loop: str = "auto"
    # Past this, an HTTP body is answered 413 and a gRPC message RESOURCE_EXHAUSTED.
    max_body_bytes: int = 64 * 2**20
    # Past this many requests at a time, 503 and RESOURCE_EXHAUSTED; those that wait for a batch are among them.
    max_in_flight: int = 1024
    keep_alive_s: int = 65
    # On SIGTERM: not ready, but still serving, for the delay (proxies stop sending meanwhile); then the listeners
    # close and what is in flight has until the time-out.
    drain_delay_s: float = 0.5
    drain_timeout_s: float = 30.0
    log_level: str = "info"
    events: ResponsePolicy = field(default_factory=ResponsePolicy)
    # Under a pair lock: the pair's id, the transformer's own service, and Knative's name for this revision.
    pair: str = ""
    transformer_host: str = ""
    revision: str = ""
    # Where the server copies requests and answers to, if anywhere: `copies.settings.takers_text`. It holds a secret.
    copies: str = field(default="", repr=False)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)

    @classmethod
    def from_args(cls, argv: Sequence[str], env: Mapping[str, str]) -> ServerConfig:
        """From a command line without flags of the unit's own. Wrong flags end the process with code 2."""
        return cls.from_options(Parser(parents=[arguments()]).parse_args(argv), env)

    @classmethod
    def from_options(cls, options: argparse.Namespace, env: Mapping[str, str]) -> ServerConfig:
        """From parsed `arguments()`. Raises ConfigError that names the variable or flag."""
        _refuse(options)
        host = options.predictor_host or ""
        return cls(
            model_name=options.model_name,
            model_dir=options.model_dir,
            host=env.get("HOST") or cls.host,
            http_port=_port(options.http_port, env, "PORT", cls.http_port),
            grpc_port=_port(options.grpc_port, env, "GRPC_PORT", cls.grpc_port),
            enable_grpc=options.enable_grpc,
            workers=options.workers,
            event_loop=options.event_loop,
            max_body_bytes=options.max_body_bytes,
            max_in_flight=options.max_in_flight,
            keep_alive_s=options.timeout_keep_alive,
            drain_delay_s=options.drain_delay_s,
            drain_timeout_s=options.drain_timeout_s,
            log_level=options.log_level,
            events=ResponsePolicy(
                env.get("CE_TYPE") or ResponsePolicy.type,
                env.get("CE_SOURCE", ""),
                env.get("CE_MERGE", "false").lower() == "true",
            ),
            pair=env.get(names.PAIR_ENV, ""),
            transformer_host=env.get(names.TRANSFORMER_HOST_ENV, ""),
            revision=env.get(names.REVISION_ENV, ""),
            copies=env.get(names.COPIES_ENV, ""),
            predictor=PredictorConfig(
                host=host,
                protocol=options.predictor_protocol,
                use_ssl=options.predictor_use_ssl,
                timeout_s=options.predictor_request_timeout_seconds,
                retries=options.predictor_request_retries,
                is_health_checked=options.enable_predictor_health_check,
                max_message_bytes=max(options.max_body_bytes, PredictorConfig.max_message_bytes),
                pair=env.get(names.PAIR_ENV, ""),
            ),
        )


class Parser(argparse.ArgumentParser):
    """A parser for a unit: what is wrong is one line with the flag that was meant, and the exit code 2."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            message += self._meant(message)
        self.exit(2, f"{self.prog}: error: {message}\n")

    def _meant(self, message: str) -> str:
        known = [
            option
            for action in self._actions
            if action.help != argparse.SUPPRESS
            for option in action.option_strings
        ]
        for word in re.findall(r"--[^\s=]+", message):
            if close := difflib.get_close_matches(word, known, n=1):
                return f"; did you mean {close[0]}?"
        return ""


def arguments() -> argparse.ArgumentParser:
    """A parent parser (`parents=[arguments()]`) with KServe's flags and a few of ours."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add = parser.add_argument_group("model").add_argument
    add("--model_name", default=ServerConfig.model_name, help="name in the URL (default: %(default)s)")
    add("--model_dir", default=ServerConfig.model_dir, help="folder with the model (default: %(default)s)")
    _add_server(parser)
    _add_predictor(parser)
    quiet = parser.add_argument_group("accepted from KServe's command lines, without effect")
    for name in WITHOUT_EFFECT:
        quiet.add_argument(f"--{name}", default=None, help=argparse.SUPPRESS)
    for name in ("ssl_certfile", "ssl_keyfile"):
        quiet.add_argument(f"--{name}", default=None, help=argparse.SUPPRESS)
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("server").add_argument
    add("--http_port", type=int, default=None, help="default: $PORT, else 8080; 0 is any free port")
    add("--grpc_port", type=int, default=None, help="default: $GRPC_PORT, else 8081; 0 is any free port")
    add("--enable_grpc", type=_boolean, default=ServerConfig.enable_grpc, help="default: true")
    add("--workers", type=int, default=ServerConfig.workers, help="1; scale by replicas instead")
    add(
        "--event-loop",
        "--event_loop",
        dest="event_loop",
        choices=("auto", "asyncio", "uvloop"),
        default="auto",
    )
    add(
        "--timeout-keep-alive",
        "--timeout_keep_alive",
        dest="timeout_keep_alive",
        type=int,
        default=ServerConfig.keep_alive_s,
        help="seconds that an idle connection is kept (default: %(default)s)",
    )
    add(
        "--max_body_bytes",
        "--max_buffer_size",
        "--grpc_max_receive_message_length",
        dest="max_body_bytes",
        type=_positive,
        default=ServerConfig.max_body_bytes,
        help="largest request, HTTP and gRPC (default: %(default)s)",
    )
    add("--grpc_max_send_message_length", type=int, default=None, help=argparse.SUPPRESS)
    add(
        "--max_in_flight",
        "--max_queue_size",
        dest="max_in_flight",
        type=_positive,
        default=ServerConfig.max_in_flight,
        help="requests at a time, waiting ones included; more are answered 503 (default: %(default)s)",
    )
    add("--drain_delay_s", type=float, default=ServerConfig.drain_delay_s, help="default: %(default)s")
    add("--drain_timeout_s", type=float, default=ServerConfig.drain_timeout_s, help="default: %(default)s")
    add("--log_level", choices=LOG_LEVELS, default=ServerConfig.log_level, help="default: %(default)s")


def _add_predictor(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("predictor, for transformers").add_argument
    add("--predictor_host", default=None, help="name[:port] of the predictor")
    add(
        "--predictor_protocol",
        choices=PROTOCOLS,
        default=PredictorConfig.protocol,
        help="default: %(default)s (KServe's own default is v1)",
    )
    add("--predictor_use_ssl", type=_boolean, default=False)
    add("--predictor_request_timeout_seconds", type=float, default=PredictorConfig.timeout_s)
    add("--predictor_request_retries", type=int, default=PredictorConfig.retries)
    add(
        "--enable_predictor_health_check",
        action="store_true",
        help="ready only while the predictor is",
    )


def _refuse(options: argparse.Namespace) -> None:
    if options.workers != 1:
        raise ConfigError(
            f"--workers={options.workers}: a pod runs one process",
            hint="scale by replicas (minReplicas, maxReplicas); a batch of rows costs less than a second process",
        )
    if options.ssl_certfile or options.ssl_keyfile:
        raise ConfigError(
            "--ssl_certfile, --ssl_keyfile: the server speaks plain HTTP",
            hint="let the ingress or mesh end TLS",
        )
    for name, why in WITHOUT_EFFECT.items():
        if getattr(options, name) is not None:
            log.warning("--%s has no effect: %s", name, why)


def _port(flag: int | None, env: Mapping[str, str], variable: str, default: int) -> int:
    if flag is None and env.get(variable):
        if not env[variable].isdigit():
            raise ConfigError(f"${variable} = {env[variable]!r}, expected a port number")
        flag = int(env[variable])
    port = default if flag is None else flag
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port} ({variable} or its flag), expected 0 to 65535")
    return port


def _boolean(text: str) -> bool:
    if text.lower() in ("y", "yes", "t", "true", "on", "1"):
        return True
    if text.lower() in ("n", "no", "f", "false", "off", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def predictor_options(config: PredictorConfig) -> dict[str, Any]:
    """The same settings by the names of kserve's own PredictorConfig."""
    return {
        "predictor_host": config.host,
        "predictor_protocol": config.protocol,
        "predictor_use_ssl": config.use_ssl,
        "predictor_request_timeout_seconds": config.timeout_s,
        "predictor_request_retries": config.retries,
        "predictor_health_check": config.is_health_checked,
    }
