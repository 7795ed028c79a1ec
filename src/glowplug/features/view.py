"""The feature view as values: entities, groups, features, policies.

Owns the order of the features (the columns of the model's tensor, groups and features as written) and the schema
hash, which travels with the rows in Redis and with the model. Parsing is in `parse`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

API_VERSION = "glowplug.dev/v1alpha1"
KIND = "FeatureView"
SCHEMA_HASH_BYTES = 8


class OnMissing(str, Enum):
    """What a request gets for an entity that has no row."""

    ERROR = "error"
    DEFAULT = "default"
    NULL = "null"


class OnStale(str, Enum):
    """What a request gets for a row older than the group's ttl."""

    ERROR = "error"
    DEFAULT = "default"
    NULL = "null"
    USE = "use"


class EntityType(str, Enum):
    STRING = "string"
    INT64 = "int64"


@dataclass(frozen=True)
class Entity:
    """One column of the request: a route, a carrier, a user."""

    name: str
    type: EntityType = EntityType.STRING


@dataclass(frozen=True)
class Feature:
    """One column of the tensor. `default` stands in where a policy says so, and for a NULL inside a row."""

    name: str
    dtype: str = "float32"
    default: float | None = None


@dataclass(frozen=True)
class Group:
    """Features that come from one table under the same join keys, and so from one row in Redis.

    `timestamp` is the table's column that says since when a row is known; `ttl_s` None means that a row never
    grows stale.
    """

    name: str
    keys: tuple[str, ...]
    source: str
    timestamp: str
    features: tuple[Feature, ...]
    ttl_s: float | None = None
    on_missing: OnMissing = OnMissing.ERROR
    on_stale: OnStale = OnStale.ERROR

    @cached_property
    def schema_hash(self) -> bytes:
        """8 bytes over the ordered feature names and types: what a packed row must have been written with."""
        return _hash(f"{feature.name}:{feature.dtype}" for feature in self.features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)


@dataclass(frozen=True)
class FeatureView:
    """The whole file. `text` is the file as read, so that it can be stored beside a model."""

    name: str
    entities: tuple[Entity, ...]
    groups: tuple[Group, ...]
    text: str = field(default="", compare=False, repr=False)

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """All features in the tensor's column order."""
        return tuple(feature for group in self.groups for feature in group.features)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def schema_hash(self) -> str:
        """16 hex digits over the ordered feature list of all groups: what a model must have been trained on."""
        return _hash(
            f"{group.name}.{feature.name}:{feature.dtype}"
            for group in self.groups
            for feature in group.features
        ).hex()

    def entity(self, name: str) -> Entity:
        return next(entity for entity in self.entities if entity.name == name)

    def group(self, name: str) -> Group:
        return next(group for group in self.groups if group.name == name)


def _hash(lines: Iterable[str]) -> bytes:
    return hashlib.sha256("\n".join(lines).encode()).digest()[:SCHEMA_HASH_BYTES]


def first_difference(expected: tuple[str, ...], found: tuple[str, ...]) -> str:
    """Where two ordered feature lists part, in words; "" if they are equal."""
    for column, (want, got) in enumerate(zip(expected, found, strict=False)):
        if want != got:
            return f"column {column} is '{got}', must be '{want}'"
    if len(expected) != len(found):
        longer, word = (expected, "lacks") if len(expected) > len(found) else (found, "has besides")
        extra = longer[min(len(expected), len(found))]
        return f"{len(found)} features, must be {len(expected)}: {word} '{extra}'"
    return ""
