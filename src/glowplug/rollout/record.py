"""The text form of a rollout's state, kept in the annotation `glowplug.dev/rollout-state`.

JSON with a version, a few hundred bytes, with latencies some three thousand. One that cannot be read, or is of another
version, is taken for none: what the InferenceService's status says is then all that is known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .evidence import Evidence, Histogram, Moments, Sample
from .state import Member, News, Phase, State
from .verdict import GateResult, Outcome, Verdict

VERSION = 1


def dump(state: State) -> str:
    """The annotation's value."""
    found: dict[str, Any] = {
        "v": VERSION,
        "phase": state.phase.value,
        "weight": state.weight,
        "since": round(state.since, 3),
        "started": round(state.started, 3),
        "members": {
            name: [member.stable, member.before, member.canary] for name, member in state.members.items()
        },
        "told": state.told,
    }
    if state.is_paused:
        found["paused"] = True
    if state.hold:
        found["hold"] = state.hold
    if state.verdict is not None:
        found["verdict"] = _verdict(state.verdict)
    if state.evidence:
        found["evidence"] = {name: _evidence(each) for name, each in state.evidence.items()}
    if state.news:
        found["news"] = [asdict(news) for news in state.news]
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def load(text: str | None) -> State | None:
    """The state; None where there is none that can be read."""
    if not text:
        return None
    try:
        found = json.loads(text)
        return _loaded(found) if found["v"] == VERSION else None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError):
        return None


def _loaded(found: Mapping[str, Any]) -> State:
    weight = found["weight"]
    verdict = found.get("verdict")
    return State(
        phase=Phase(found["phase"]),
        # Older ones had a fourth.
        members={str(name): Member(*map(str, each[:3])) for name, each in found["members"].items()},
        weight=None if weight is None else int(weight),
        since=_number(found["since"]),
        started=_number(found["started"]),
        is_paused=bool(found.get("paused", False)),
        hold=str(found.get("hold", "")),
        verdict=None if verdict is None else _loaded_verdict(verdict),
        evidence={str(name): _loaded_evidence(each) for name, each in found.get("evidence", {}).items()},
        news=tuple(News(**each) for each in found.get("news", ())),
        told=int(found["told"]),
    )


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {**verdict.as_json(), "urgent": verdict.is_urgent}


def _loaded_verdict(found: Mapping[str, Any]) -> Verdict:
    gates = tuple(GateResult(**{**gate, "outcome": Outcome(gate["outcome"])}) for gate in found["gates"])
    return Verdict(Outcome(found["outcome"]), str(found["reason"]), gates, bool(found["urgent"]))


def _evidence(evidence: Evidence) -> list[Any]:
    return [_sample(evidence.canary), _sample(evidence.stable)]


def _sample(sample: Sample) -> list[Any]:
    loss = sample.loss
    return [
        sample.requests,
        sample.errors,
        list(sample.latency.bounds_s),
        list(sample.latency.counts),
        [loss.count, loss.mean, loss.squares],
        sample.latency.readings,
        [round(each, 3) for each in sample.latency.spread],
    ]


def _loaded_evidence(found: Any) -> Evidence:
    canary, stable = found
    return Evidence(_loaded_sample(canary), _loaded_sample(stable))


def _loaded_sample(found: Any) -> Sample:
    requests, errors, bounds, counts, (count, mean, squares), readings, spread = found
    histogram = Histogram(
        tuple(map(_number, bounds)), tuple(map(int, counts)), int(readings), tuple(map(_number, spread))
    )
    if len(histogram.spread) != (len(histogram.bounds_s) if histogram.readings else 0):
        raise ValueError("a histogram of readings has a spread for each bound")
    if len(histogram.counts) != len(histogram.bounds_s) + 1:
        raise ValueError("a histogram has one count more than bounds")
    return Sample(int(requests), int(errors), histogram, Moments(int(count), _number(mean), _number(squares)))


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no finite number")
    return number
