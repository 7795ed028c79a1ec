"""Which pair a process under a lock is of; imported where there is a lock only."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.spec import names


@dataclass(frozen=True)
class Pair:
    """Whose process this is. `id` is empty without a lock; `transformer_host` is the transformer's own service, told to
    the transformer only; `revision` is Knative's name for this one, which ends in a number that rises."""

    id: str = ""
    transformer_host: str = ""
    revision: str = ""

    def refusal(self, asked: str) -> str:
        """What a request for another pair is told."""
        return f"this is of pair {self.id!r}, and the request is for pair {asked[:80]!r}"

    def signature(self) -> dict[str, str]:
        """The headers of a refusal."""
        signature = {names.PAIR_HEADER: self.id}
        if self.revision:
            signature[names.PAIR_REVISION_HEADER] = self.revision
        return signature

    def is_older_than(self, revision: str) -> bool:
        """Whether `revision` is a later one of the same service."""
        service, _, number = self.revision.rpartition("-")
        other, _, later = revision.rpartition("-")
        is_comparable = service == other and number.isdecimal() and later.isdecimal()
        return is_comparable and int(number) < int(later)
