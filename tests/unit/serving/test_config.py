"""Flags and environment to settings."""

from __future__ import annotations

import argparse
import logging

import pytest

from glowplug.errors import ConfigError
from glowplug.serving import ServerConfig, arguments


def config(*argv: str, **env: str) -> ServerConfig:
    return ServerConfig.from_args(argv, env)


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    assert (config().http_port, config().grpc_port, config().host) == (8080, 8081, "0.0.0.0")
    found = config(PORT="9000", GRPC_PORT="9001", HOST="127.0.0.1")
    assert (found.http_port, found.grpc_port, found.host) == (9000, 9001, "127.0.0.1")
    assert config("--http_port=1", "--grpc_port", "0", PORT="9000").http_port == 1


def test_kserves_own_command_line_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    found = config(
        "--model_name=flights", "--model_dir=/mnt/models", "--http_port=8080", "--grpc_port=8081", "--workers=1",
        "--max_threads=4", "--max_asyncio_workers=8", "--enable_grpc=true", "--enable_docs_url=false",
        "--enable_latency_logging=true", "--configure_logging=true", "--log_config_file=x", "--access_log_format=y",
        "--event-loop=asyncio", "--timeout-keep-alive=30", "--predictor_host=localhost:8081", "--protocol=v2",
        "--predictor_protocol=v2", "--predictor_use_ssl=false", "--predictor_request_timeout_seconds=5",
        "--predictor_request_retries=2", "--enable_predictor_health_check", "--grpc_max_send_message_length=1",
        "--grpc_max_receive_message_length=4096",
    )  # fmt: skip
    assert found.predictor.host == "localhost:8081"
    assert (found.predictor.protocol, found.predictor.timeout_s, found.predictor.retries) == ("v2", 5.0, 2)
    assert found.predictor.is_health_checked
    assert (found.keep_alive_s, found.event_loop, found.max_body_bytes) == (30, "asyncio", 4096)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("--max_threads has no effect" in text for text in warned)


@pytest.mark.parametrize(
    "flag", ["--no_such_flag", "--http_port=x", "--enable_grpc=maybe", "--max_body_bytes=0"]
)
def test_what_is_unknown_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        config(flag)
    assert caught.value.code == 2
    assert flag.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "env", "said"),
    [
        (["--workers=2"], {}, "--workers=2: a pod runs one process"),
        (["--ssl_certfile=x"], {}, "plain HTTP"),
        ([], {"PORT": "http"}, "$PORT = 'http'"),
        (["--http_port=70000"], {}, "port 70000"),
    ],
)
def test_what_cannot_be_is_said(argv: list[str], env: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig.from_args(argv, env)
    assert said in caught.value.message


def test_a_unit_adds_its_own_flags() -> None:
    parser = argparse.ArgumentParser(parents=[arguments()])
    parser.add_argument("--nthread", type=int, default=1)
    options = parser.parse_args(["--nthread=2", "--model_name=m"])
    assert ServerConfig.from_options(options, {}).model_name == "m"
    assert options.nthread == 2


def test_event_answers_follow_kserves_variables() -> None:
    events = config(CE_TYPE="my.type", CE_SOURCE="me", CE_MERGE="true").events
    assert (events.type, events.source, events.merges_request) == ("my.type", "me", True)


def test_a_wrong_flag_is_one_line_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, meant in (("--model_namez=x", "; did you mean --model_name?"), ("--zzz=3", "")):
        with pytest.raises(SystemExit) as caught:
            config(flag)
        assert caught.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].endswith(f"error: unrecognized arguments: {flag}{meant}")
