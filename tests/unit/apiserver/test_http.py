"""Answers as headers and bytes."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from glowplug.apiserver.http import Response, send_response


async def warned(*warnings: str) -> list[str]:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await send_response(send, Response(b"{}", warnings=warnings))
    return [value.decode("latin-1") for name, value in sent[0]["headers"] if name == b"warning"]


@pytest.mark.parametrize("text", ["plain", "x" * 4096])
async def test_a_warning_is_whole(text: str) -> None:
    assert await warned(text) == [f'299 - "{text}"']


async def test_a_warning_is_one_line() -> None:
    assert await warned('a\r\nevil: "1"') == [r'299 - "a evil: \"1\""']


async def test_long_warnings_are_cut_and_too_many_left_out() -> None:
    assert await warned("x" * 100_000, "short") == [f'299 - "{"x" * 256}"', '299 - "short"']
    assert len(await warned(*["x" * 256] * 100)) == 16
