"""The script by which Envoy copies requests and answers: `copy.lua`, for one socket. See there what it does.

It is run by Envoy's Lua filter, which has LuaJIT with its foreign functions.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/lua_filter
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

# The key of the filter's context, under which a route gives its settings (`Settings.to_script`).
ROUTE = "route"


def source(socket: Path, name: str, max_body_bytes: int, answer_headers: Iterable[str]) -> str:
    """The script for copies to that socket. `name` is its own in Envoy's metadata of a request.

    A body larger than `max_body_bytes` is not copied. Of an answer's headers those with these names are, and gRPC's
    status.
    """
    constants = {
        "SOCKET": _text(str(socket)),
        "NAME": _text(name),
        "MAX_BODY_BYTES": str(max_body_bytes),
        "ANSWER_HEADERS": "{" + ", ".join(map(_text, answer_headers)) + "}",
    }
    lines = [f"local {key} = {value}" for key, value in constants.items()]
    return "\n".join([*lines, _script()])


def _text(value: str) -> str:
    """As Lua reads any text back: its bytes, by their numbers."""
    return '"' + "".join(f"\\{byte:03}" for byte in value.encode()) + '"'


@cache
def _script() -> str:
    return Path(__file__).with_name("copy.lua").read_text("utf-8")
