"""gRPC's texts and times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.wire.http2 import status
from glowplug.wire.http2.messages import decode_text, encode_text, grpc_timeout_s, timeout_text


@given(st.text(st.characters(codec="utf-8")))
def test_texts_are_read_as_they_were_written(text: str) -> None:
    encoded = encode_text(text)
    assert encoded.isascii()
    assert encoded.isprintable() or not encoded
    assert decode_text(encoded) == text


@given(st.floats(1e-6, 1e9))
def test_times_are_never_shortened(seconds: float) -> None:
    found = grpc_timeout_s({"grpc-timeout": timeout_text(seconds)})
    assert found is not None
    assert found >= min(seconds, 99_999_999) * (1 - 1e-12)
    assert found <= seconds + max(1.01e-6, 1.01e-3 * (seconds >= 10), 1.0 * (seconds >= 1000))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9), ("0S", 0)],
)
def test_units(text: str, seconds: float) -> None:
    assert grpc_timeout_s({"grpc-timeout": text}) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "5s", "-5S", "123456789S", "٣S", "1 S"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert grpc_timeout_s({"grpc-timeout": text}) is None


def test_statuses() -> None:
    assert [status.parse(text) for text in ("0", "16", "17", "-1", "", "1x", "007")] == [0, 16, 2, 2, 2, 2, 2]
    assert (status.of_http(503), status.of_http(200), status.of_http(418)) == (14, 2, 2)
    assert status.NUMBERS["UNAUTHENTICATED"] == 16
