"""What is written and what is told of it: `Ref` names an object, `Write` asks the store, `Change` is what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from glowplug.apiserver.codec import Object, decode
from glowplug.spec.kinds import Kind

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"


class Ref(NamedTuple):
    """Where an object lives; `namespace` is empty for cluster-scoped kinds."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f'{self.kind.resource} "{self.name}"'


@dataclass(frozen=True, slots=True)
class Write:
    """One object to store (or, with `is_removal`, to drop: `raw` is then its last state) under `revision`."""

    ref: Ref
    revision: int
    raw: bytes
    is_removal: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to one object; `previous` is what was stored before, None for ADDED."""

    type: str
    ref: Ref
    revision: int
    raw: bytes
    previous: bytes | None

    @property
    def kind(self) -> Kind:
        return self.ref.kind

    @property
    def object(self) -> Object:
        """The object after the change (for DELETED: its last state), a fresh dict at every call."""
        return decode(self.raw)
