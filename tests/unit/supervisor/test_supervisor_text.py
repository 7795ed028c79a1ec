"""Rewriting and expansion of text, and log lines: properties."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.supervisor.downward import quantity
from glowplug.supervisor.expansion import expand
from glowplug.supervisor.log_lines import MAX_LINE, Line, LineSplitter, decode, encode, render, stamp
from glowplug.supervisor.ports import flag_ports, rewrite_port_words
from glowplug.supervisor.rewrite import Rewriter

MOUNTS = {"/mnt/models": "/r/mnt/models", "/etc/x/": "/real-x", "/etc/x/deep": "/deep", "/tmp": "/data/tmp"}


def resolve(namespace: str, service: str) -> str | None:
    return "127.0.0.1:7001" if (namespace, service) == ("default", "flights-predictor") else None


REWRITER = Rewriter({8080: 20080, 8081: 20081, 80: 20000}, MOUNTS, resolve)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--http_port=8080", "--http_port=20080"),
        ("serve --http_port 8080 --grpc_port=8081;", "serve --http_port 20080 --grpc_port=20081;"),
        ("--http_port=80801", "--http_port=80801"),
        ("--my--http_port=8080", "--my--http_port=8080"),
        ("http://localhost:8080/v1", "http://localhost:20080/v1"),
        ("127.0.0.1:8081,localhost:9999", "127.0.0.1:20081,localhost:9999"),
        ("notlocalhost:8080 my.localhost:8080", "notlocalhost:8080 my.localhost:8080"),
        ("1127.0.0.1:8080", "1127.0.0.1:8080"),
        ("redis.example.com:8080", "redis.example.com:8080"),
        ("/mnt/models", "/r/mnt/models"),
        ("--model_dir=/mnt/models/a", "--model_dir=/r/mnt/models/a"),
        ("file:///mnt/models/a", "file:///r/mnt/models/a"),
        (
            "/mnt/models-old /opt/mnt/models /mnt/models.bak",
            "/mnt/models-old /opt/mnt/models /mnt/models.bak",
        ),
        ("https://host/mnt/models", "https://host/mnt/models"),
        ("/etc/x/deep/y:/etc/x/y:/etc/x", "/deep/y:/real-x/y:/real-x"),
        ("/tmp/a", "/data/tmp/a"),
        ("flights-predictor.default", "127.0.0.1:7001"),
        ("http://flights-predictor.default.svc.cluster.local:80/v2", "http://127.0.0.1:7001/v2"),
        ("grpc://flights-predictor.default.svc", "grpc://127.0.0.1:7001"),
        ("flights-predictor.default:8080", "flights-predictor.default:8080"),
        ("flights-predictor.default.example.com", "flights-predictor.default.example.com"),
        ("x.flights-predictor.default", "x.flights-predictor.default"),
        ("/srv/flights-predictor.default", "/srv/flights-predictor.default"),
        ("model.json 1.5 a.b.c", "model.json 1.5 a.b.c"),
    ],
)
def test_rewriting(text, expected):
    assert REWRITER.text(text) == expected


@given(st.text(alphabet="lochst127.0:8/mntodels-= \n", max_size=40))
def test_ports_are_idempotent_and_plain_text_stays(text):
    once = REWRITER.ports(text)
    assert REWRITER.ports(once) == once
    if ":" not in text and "port" not in text:
        assert once == text


@given(st.text(max_size=60))
def test_text_without_anything_of_the_pod_is_untouched(text):
    if re.search(r"localhost|127|0\.0|_port|/mnt|/etc|/tmp|default", text) is None:
        assert REWRITER.text(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "one"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$one"),
        ("$(B)", "$(B)"),
        ("$(A", "$(A"),
        ("$A $", "$A $"),
        ("$()", "$()"),
        ("$(R)", "$(A)"),
        ("$(A)$(A)", "oneone"),
        ("$(A$(A))", "$(A$(A))"),
    ],
)
def test_expansion(text, expected):
    assert expand(text, {"A": "one", "R": "$(A)"}) == expected


@given(st.text(alphabet="$(A)B ", max_size=20))
def test_expansion_escapes_round_trip(text):
    assert expand(text.replace("$", "$$"), {"A": "one"}) == text


@given(
    st.lists(
        st.sampled_from(["--http_port", "--grpc_port=81", "--http_port=80", "8080", "x", "--http_port 90"])
    )
)
def test_named_flags_are_the_rewritten_ones(words):
    found = flag_ports({"args": words})
    assert set(found) <= {"http", "grpc"}
    real = {number: number + 20000 for number in (80, 81, 90, 8080)}
    rewriter = Rewriter(real, {}, resolve)
    after = flag_ports({"args": [rewriter.text(word) for word in rewrite_port_words(words, real)]})
    assert after == {kind: real[number] for kind, number in found.items()}


@given(st.lists(st.binary(max_size=MAX_LINE + 100), max_size=6), st.lists(st.integers(0, 40_000), max_size=6))
def test_lines_survive_any_chunking(parts, cuts):
    data = b"\n".join(parts)
    splitter = LineSplitter()
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [piece for a, b in itertools.pairwise(bounds) for piece in splitter.feed(data[a:b])]
    pieces += splitter.flush()
    assert all(len(text) <= MAX_LINE for text, _ in pieces)
    now = stamp(1_700_000_000_123_456_789)
    lines = [decode(encode(now, text, is_partial)[:-1]) for text, is_partial in pieces]
    shown = b"".join(render(line, False, False) for line in lines if line is not None)
    assert shown in (data, data + b"\n")


def test_stamps_sort_and_broken_lines_are_none():
    assert stamp(0) == "1970-01-01T00:00:00.000000000Z"
    assert stamp(999) < stamp(1000) < stamp(10**18)
    assert decode(b"garbage") is None
    assert decode(b"2024 stdout X text") is None
    assert render(Line("T", False, b"a"), True, True) == b"a\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 0.5), ("2", 2), (1.5, 1.5), ("1Gi", 2**30), ("1e3", 1000), ("x", None), (None, None)],
)
def test_quantities(text, value):
    found = quantity(text)
    assert (None if found is None else float(found)) == value
