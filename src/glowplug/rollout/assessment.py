"""What has been measured of one rollout's canary, and what the judge makes of it.

The evidence of the step is in the state and outlives the process; what only matters for seconds (the latest readings,
for the guardrails, and since when there are none) is kept here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from glowplug.errors import GlowplugError

from .evidence import Evidence, NoEvidence
from .gates import LOSS, Gates, metrics_of
from .judge import judge
from .plan import Ruling
from .settings import Settings
from .state import Member
from .sums import sum_of
from .verdict import Outcome, Verdict

# Long enough for the guardrails to see a burst, short enough for it not to drown.
_RECENT_S = 15.0
# Where labels are counted: predictions are its, whatever stands before it.
_LABELLED = "predictor"


class Source(Protocol):
    """Where it is read what two revisions (`namespace/name`) have answered since it was last read."""

    @property
    def metrics(self) -> frozenset[str]: ...

    async def read(self, canary: str, stable: str) -> Evidence | NoEvidence: ...


class Assessment:
    """Of one rollout; a new one for each. `new_source` makes a source that remembers its own last reading, for gates
    that need these metrics: a rollout that needs no labels is not blind without them.

    What cannot be measured for `blind_after_s` is worth telling.
    """

    def __init__(
        self, namespace: str, new_source: Callable[[frozenset[str]], Source], blind_after_s: float
    ) -> None:
        self._namespace, self._new_source, self._blind_after_s = namespace, new_source, blind_after_s
        self._sources: dict[tuple[str, frozenset[str]], Source] = {}
        self._recent: dict[str, deque[tuple[float, Evidence]]] = {}
        self._read_at: float | None = None
        self._blind = ""

    async def read(self, members: Mapping[str, Member], gates: Gates, now: float) -> dict[str, Evidence]:
        """What has come since the last call, by component; nothing where it cannot be read."""
        if self._read_at is None:
            self._read_at = now
        self._blind, found = "", {}
        for name, member in members.items():
            reading = await self._reading(name, member, metrics_of(_of(name, members, gates)))
            if isinstance(reading, NoEvidence):
                self._blind = reading.why
                continue
            found[name] = reading
            recent = self._recent.setdefault(name, deque())
            recent.append((now, reading))
            while recent[0][0] <= now - _RECENT_S:
                recent.popleft()
        if not self._blind:
            self._read_at = now
        return found

    def rule(
        self, settings: Settings, members: Mapping[str, Member], evidence: Mapping[str, Evidence], now: float
    ) -> Ruling:
        """The judge's word on `evidence`, that of the step: of several components the worst one's."""
        # As many looks as there are, so that all together are wrong as seldom as one would be.
        looks = max(1, settings.judged_steps * len(members))
        verdicts = []
        for name in sorted(members):
            gates = _of(name, members, settings.gates)
            if not gates:
                continue
            recent = [each for at, each in self._recent.get(name, ()) if at > now - _RECENT_S]
            verdicts.append(
                judge(
                    gates,
                    evidence.get(name) or NoEvidence(self._blind or "nothing has been measured yet"),
                    sum_of(recent) if recent else NoEvidence(self._blind or "nothing has been measured yet"),
                    steps=looks,
                )
            )
        is_long = self._read_at is not None and now >= self._read_at + self._blind_after_s
        return Ruling(_worst(verdicts), self._blind, is_blind_long=bool(self._blind) and is_long)

    def forget_recent(self) -> None:
        """When the weight has moved: what was answered before belongs to another step."""
        self._recent.clear()

    async def _reading(self, name: str, member: Member, metrics: frozenset[str]) -> Evidence | NoEvidence:
        source = self._sources.get((name, metrics))
        if source is None:
            source = self._sources[name, metrics] = self._new_source(metrics)
        try:
            return await source.read(
                f"{self._namespace}/{member.canary}", f"{self._namespace}/{member.stable}"
            )
        except (GlowplugError, OSError, TimeoutError) as error:
            return NoEvidence(str(error) or type(error).__name__)


def _of(name: str, members: Mapping[str, Member], gates: Gates) -> Gates:
    """The gates that this component is held to."""
    if name == _LABELLED or _LABELLED not in members:
        return gates
    return tuple(gate for gate in gates if gate.metric != LOSS)


def _worst(verdicts: list[Verdict]) -> Verdict:
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        found = [verdict for verdict in verdicts if verdict.outcome is outcome]
        if found:
            return found[0]
    return verdicts[0]
