"""The detector of one InferenceService: events in, counts and decisions out, all of it in the store.

Not for two threads at once, and inside the store's transaction only: whoever calls has all of a batch written or none,
and calls `load` again where it failed.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import orjson

from glowplug.drift import payloads
from glowplug.drift.config import DriftConfig
from glowplug.drift.episodes import Decision, Episodes, decide, episode_id
from glowplug.drift.grid import Counts, Table
from glowplug.drift.judge import Reference, Verdict, judge
from glowplug.drift.nulls import calibrate
from glowplug.drift.payloads import LABEL, REQUEST, RESPONSE, Labels, Unfit
from glowplug.drift.profile import Doubles, Profile
from glowplug.drift.slots import Slot, is_full, merged
from glowplug.drift.store import Store
from glowplug.spec.times import parse_time
from glowplug.wire.events import CloudEvent, structured_json

DETECTED = "dev.glowplug.drift.detected"
_MOST_FEATURES = 50
_EXPIRE_EVERY = 1000
# Whose errors are told; those that were joined to the longest ago go.
_MOST_REVISIONS = 100


@dataclass(frozen=True)
class Target:
    """What is watched; `model` is its name in the registry, which a retraining is of.

    Features are what the `component` is asked: with a transformer of its own, the predictor's requests have them.
    """

    namespace: str
    inferenceservice: str
    model: str
    component: str = "predictor"

    @property
    def source(self) -> str:
        return f"/glowplug/drift/{self.namespace}/{self.inferenceservice}"


@dataclass(frozen=True)
class Memory:
    """How much is remembered for late labels and for repetitions. Seconds, bytes, ids."""

    label_wait_s: float = 30 * 86400.0
    held_bytes: int = 256 * 2**20
    early_labels: int = 100_000
    early_bytes: int = 64 * 2**20
    seen: int = 200_000


@dataclass(frozen=True)
class Judged:
    """One window, what was found in it, and what was decided."""

    window: Slot
    verdict: Verdict
    decision: Decision
    event: CloudEvent | None


class Detector:
    """`on_judged` is told of every window; `counts` are events by outcome, `losses` by version: rows, |e|, e²."""

    def __init__(
        self,
        target: Target,
        profile: Profile,
        config: DriftConfig,
        store: Store,
        memory: Memory | None = None,
        on_judged: Callable[[Judged], None] = lambda judged: None,
    ) -> None:
        self.target, self.config, self._store = target, config.checked(), store
        self._memory = memory or Memory()
        self._on_judged = on_judged
        self._table = Table(())
        self._closed: deque[Slot] = deque()
        self._open: Slot | None = None
        self._number = 0
        self.profile, self.episodes = profile, Episodes()
        self.counts: Counter[str] = Counter()
        self.losses: dict[str, list[float]] = {}
        self.last: Judged | None = None
        self.use(profile)

    def use(self, profile: Profile) -> None:
        """Compares with another profile from now on, a new model's: counting begins anew, and no episode is open."""
        self.profile = profile
        # By cells for the features alone: what requests have; the prediction's grid is apart.
        self._table = profile.table
        if self.config.window_rows:
            nulls = calibrate(profile, rows=self.config.window_rows)
        else:
            nulls = calibrate(profile, seconds=self.config.window_s)
        self._reference = Reference.of(profile, nulls)
        self._features = Table(profile.table.grids[:-1])
        self._prediction = profile.table.grids[-1]
        self.load()

    def load(self) -> None:
        """What the store has; if it was counted against another profile, or in other windows, it is of no use."""
        kept = self._store.fact("state")
        document = kept if isinstance(kept, dict) else {}
        self.counts = Counter(document.get("counts", {}))
        self.losses = {name: list(sums) for name, sums in document.get("losses", {}).items()}
        self._closed, self._open, self._number, self.episodes = deque(), None, 0, Episodes()
        if document.get("basis") != self._basis():
            return
        self.episodes = Episodes(**{**document["episodes"], "recent": tuple(document["episodes"]["recent"])})
        slots = [
            (number, Slot.from_document(orjson.loads(text), counts, self._table))
            for number, text, counts in self._store.slots()
        ]
        if slots:
            self._number, self._open = slots[-1]
            self._closed.extend(slot for _, slot in slots[:-1])

    def save(self) -> None:
        """Writes what changed, except for slots that were closed: those are written when they are."""
        kept = self._store.fact("state")
        if isinstance(kept, dict) and kept.get("basis") != self._basis():
            self._store.reset()
        if self._open is not None:
            document, counts = self._open.to_document()
            self._store.keep_slot(self._number, orjson.dumps(document), counts)
        state = {
            "basis": self._basis(),
            "episodes": asdict(self.episodes),
            "counts": dict(self.counts),
            "losses": self.losses,
        }
        self._store.keep("state", state)

    def take(self, event: CloudEvent, received_at: float) -> str:
        """Counts one event; what became of it, in a word. Raises EventProblem for labels that are none."""
        outcome = self._take(event, received_at)
        self.counts[outcome] += 1
        if self._open is not None and self.counts[outcome] % _EXPIRE_EVERY == 0:
            # By the events' own time: what is replayed years later has not waited for years.
            self.counts["expired"] += self._store.expire(self._open.last - self._memory.label_wait_s)
        return outcome

    def _take(self, event: CloudEvent, received_at: float) -> str:
        kind = event.text("type")
        labels = payloads.labels_of(event) if kind == LABEL else None
        if kind not in (REQUEST, RESPONSE, LABEL) or not self._is_watched(event, labels):
            return "ignored"
        key = "\n".join((event.text("source"), event.text("id"), kind)).encode()
        if not self._store.see(hashlib.sha256(key).digest()[:16], self._memory.seen):
            return "repeated"
        # A clock that is ahead must not close windows that have not been.
        said = parse_time(event.text("time"))
        at = received_at if said is None else max(0.0, min(received_at, said.timestamp()))
        self._turn_back(received_at)
        slot = self._slot(at)
        # An answer belongs to the slot of its request, as long as requests come.
        begins = kind == REQUEST or (kind == RESPONSE and not slot.requests)
        if self.config.window_rows and begins and is_full(slot, self.config, at):
            self._close(at)
            slot = self._slot(at)
        slot.touch(at)
        if labels is not None:
            return self._take_labels(labels, slot, at)
        if kind == REQUEST:
            return self._take_request(event, slot)
        return self._take_response(event, slot, at)

    def _is_watched(self, event: CloudEvent, labels: Labels | None) -> bool:
        if labels is not None:
            found = (labels.namespace, labels.inferenceservice)
        else:
            found = (event.text("namespace"), event.text("inferenceservicename"))
            if event.text("component") not in ("", self.target.component):
                return False
        return found == (self.target.namespace, self.target.inferenceservice)

    def _take_request(self, event: CloudEvent, slot: Slot) -> str:
        try:
            rows, _ = payloads.features_of(event, self.profile.names)
        except Unfit as unfit:
            slot.add_unfit(str(unfit))
            return "unfit"
        counts: Counts = np.zeros((len(self.profile.names), self._table.width), dtype=np.int64)
        own = self._features.count(rows.T)
        counts[:, : own.shape[1] - 1], counts[:, -1] = own[:, :-1], own[:, -1]
        slot.add_features(counts, payloads.revision_of(event))
        return "request"

    def _take_response(self, event: CloudEvent, slot: Slot, at: float) -> str:
        try:
            predicted, own_id = payloads.predictions_of(event)
        except Unfit:
            # Mostly an error's body: the model refused the request, which was counted by itself.
            return "unreadable"
        counts: Counts = np.zeros(self._table.width, dtype=np.int64)
        own = self._prediction.count(predicted)
        counts[: len(own) - 1], counts[-1] = own[:-1], own[-1]
        slot.add_predictions(counts)
        event_id, revision = event.text("id"), payloads.version_of(event)
        values = predicted.astype(np.float64)
        for name in dict.fromkeys(filter(None, (own_id, event_id))):
            early = self._store.early(name)
            if early is not None and len(early) == len(values):
                values = self._join(early, values, revision, slot)
        if np.isfinite(values).any():
            self.counts["forgotten"] += self._store.remember(
                own_id or event_id, event_id, at, revision, values, self._memory.held_bytes
            )
        return "response"

    def _take_labels(self, labels: Labels, slot: Slot, at: float) -> str:
        values = np.asarray(labels.values, dtype=np.float64)
        held = self._store.waiting(labels.id)
        if held is None:
            before = self._store.early(labels.id)
            if before is not None and len(before) == len(values):
                values = np.where(np.isnan(values), before, values)
            memory = self._memory
            self._store.keep_early(labels.id, at, values, memory.early_labels, memory.early_bytes)
            return "label_early"
        if len(held.values) != len(values):
            return "label_mismatched"
        held.values[:] = self._join(values, held.values, held.revision, slot)
        self._store.settle(held)
        return "label_joined"

    def _join(self, labels: Doubles, predicted: Doubles, revision: str, slot: Slot) -> Doubles:
        """The predictions that wait on: NaN where a label came, so that none counts twice."""
        errors = np.abs(predicted - labels)
        is_joined = np.isfinite(errors)
        found = errors[is_joined]
        slot.add_errors(found)
        sums = self.losses[revision] = self.losses.pop(revision, [0.0, 0.0, 0.0])
        while len(self.losses) > _MOST_REVISIONS:
            del self.losses[next(iter(self.losses))]
        for place, amount in enumerate((len(found), found.sum(), (found**2).sum())):
            sums[place] += float(amount)
        return np.where(is_joined, np.nan, predicted)

    def _turn_back(self, now: float) -> None:
        """Where this computer's clock was far ahead: else nothing would be judged until it is that late again."""
        slot = self._open
        if slot is not None and not self.config.window_rows and slot.started > now + self.config.slot_s:
            slot.started = now // self.config.slot_s * self.config.slot_s

    def _slot(self, at: float) -> Slot:
        """The slot that an event at `at` is counted in; those before it are closed and judged."""
        if self._open is None:
            self._open = Slot.empty(self._table, at, self.config)
        while not self.config.window_rows and is_full(self._open, self.config, at):
            behind = at - self._open.started
            if behind > self.config.slot_s * (self.config.slots + 1) and not self._open.size:
                # A long silence: as many empty slots as a window has say the same as all of them.
                self._open.started += self.config.slot_s * (behind // self.config.slot_s - self.config.slots)
            self._close(self._open.started + self.config.slot_s)
        return self._open

    def _close(self, at: float) -> None:
        """Puts the open slot away, judges the window that ends with it, and opens the next at `at`."""
        assert self._open is not None, "there is one to close"
        document, counts = self._open.to_document()
        self._store.keep_slot(self._number, orjson.dumps(document), counts)
        self._closed.append(self._open)
        while len(self._closed) > self.config.slots:
            self._closed.popleft()
        self._number += 1
        self._store.drop_slots(self._number - len(self._closed))
        self._open = Slot.empty(self._table, at, self.config)
        if len(self._closed) == self.config.slots:
            self._judge(at)

    def _judge(self, at: float) -> None:
        window = merged(self._closed)
        verdict = judge(self._reference, window, self.config)
        self.episodes, decision = decide(self.episodes, verdict.is_drifted, verdict.is_calm, at, self.config)
        event = self._event(window, verdict, at) if decision.opened else None
        if event is not None:
            self._store.post(event.text("id"), structured_json(event))
        for name in ("windows", *(["episodes"] if decision.opened else [])):
            self.counts[name] += 1
        self.last = Judged(window, verdict, decision, event)
        self._on_judged(self.last)

    def _event(self, window: Slot, verdict: Verdict, at: float) -> CloudEvent:
        target = self.target
        id = episode_id(target.namespace, target.inferenceservice, self.profile.digest, self.episodes)
        revisions = [name for name, _ in window.revisions.most_common() if name]
        error = verdict.error
        data: dict[str, Any] = {
            "inferenceservice": target.inferenceservice,
            "namespace": target.namespace,
            "model": target.model,
            "revision": revisions[0] if revisions else None,
            "episode": self.episodes.number,
            "detected_at": moment(at),
            "reason": verdict.reason,
            "profile": self.profile.digest,
            "reference": {
                "rows": self.profile.rows,
                "from": moment(self.profile.started.timestamp()),
                "to": moment(self.profile.ended.timestamp()),
            },
            "window": {"rows": window.size, "from": moment(window.first), "to": moment(window.last)},
            "features": [found.document() for found in verdict.features[:_MOST_FEATURES]],
            "share": round(verdict.share, 4),
            "prediction": {
                "drifted": verdict.prediction_drifted,
                "tests": [found.document() for found in verdict.prediction],
            }
            if verdict.prediction
            else None,
            "error": {
                "drifted": error.is_drifted,
                "rows": error.rows,
                "mae": round(error.mae, 6),
                "rmse": round(error.rmse, 6),
                "reference_mae": round(error.reference_mae, 6),
                "p_value": float(f"{error.p_value:.4g}"),
            }
            if error is not None
            else None,
        }
        attributes = {
            "specversion": "1.0",
            "id": id,
            "source": target.source,
            "type": DETECTED,
            "subject": target.inferenceservice,
            "time": moment(at),
            "datacontenttype": "application/json",
            # What Triggers filter by: they see attributes, and no data.
            "model": target.model,
        }
        return CloudEvent(attributes, orjson.dumps(data))

    def _basis(self) -> str:
        """What the counts are worth something with."""
        config = self.config
        return f"{self.profile.digest}/{config.window_s:g}/{config.window_rows}/{config.slots}"


def moment(at: float) -> str:
    """Seconds since the epoch as RFC 3339."""
    found = datetime.fromtimestamp(at, timezone.utc)
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
