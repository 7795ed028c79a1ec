"""Redis keys of feature rows: entity values ↔ bytes, without collisions.

    gp:f:<view>:<group>:<schema hash>:<value>:<value>…       one packed row
    gp:m:<view>:<group>:<schema hash>                         the group's materialization state

The group's schema hash is part of the key, so that two versions of a view live side by side: in a canary the old
revision goes on reading the old rows. `:` and `%` in a value are written `%3A` and `%25`, everything else as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from glowplug.features.view import FeatureView, Group

_ROWS = "gp:f"
_STATE = "gp:m"


def escape(value: str) -> str:
    if ":" not in value and "%" not in value:
        return value
    return value.replace("%", "%25").replace(":", "%3A")


def unescape(text: str) -> str:
    return text.replace("%3A", ":").replace("%25", "%")


def row_prefix(view: FeatureView, group: Group) -> str:
    return f"{_ROWS}:{view.name}:{group.name}:{group.schema_hash.hex()}:"


def state_key(view: FeatureView, group: Group) -> str:
    return f"{_STATE}:{view.name}:{group.name}:{group.schema_hash.hex()}"


def row_keys(view: FeatureView, group: Group, columns: Sequence[Sequence[str]]) -> list[bytes]:
    """The keys of n rows, from one column of n values for each of the group's join keys, in their order."""
    prefix = row_prefix(view, group)
    escaped = [[escape(value) for value in column] for column in columns]
    # A lone surrogate is a value too: it must get a key of its own rather than an exception.
    return [
        (prefix + ":".join(values)).encode("utf-8", "surrogatepass") for values in zip(*escaped, strict=True)
    ]


def entity_values(view: FeatureView, group: Group, key: bytes) -> tuple[str, ...]:
    """The entity values of a row's key: the inverse of `row_keys`. Raises `ValueError` if it is not one."""
    prefix = row_prefix(view, group)
    text = key.decode("utf-8", "surrogatepass")
    parts = text[len(prefix) :].split(":")
    if not text.startswith(prefix) or len(parts) != len(group.keys):
        raise ValueError(f"{text!r} is not a key of {view.name}/{group.name}")
    return tuple(unescape(part) for part in parts)
