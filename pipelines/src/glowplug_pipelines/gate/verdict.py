"""All checks together: pass, fail or inconclusive, with the reason. A challenger that isn't better never passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from glowplug_pipelines.gate import checks
from glowplug_pipelines.gate.bootstrap import Resampling
from glowplug_pipelines.gate.checks import Check, Result, SliceDifference
from glowplug_pipelines.gate.evidence import Evidence
from glowplug_pipelines.settings import GateSettings

# The same evidence gives the same verdict.
SEED = 20130101


@dataclass(frozen=True)
class Verdict:
    """`reason` is that of the checks that decided; `slices` all that were looked at, the worst first."""

    result: Result
    reason: str
    checks: tuple[Check, ...]
    slices: tuple[SliceDifference, ...] = ()

    def to_json(self) -> dict[str, Any]:
        listed = [{**asdict(each), "result": each.result.value} for each in self.checks]
        return {"verdict": self.result.value, "reason": self.reason, "checks": listed}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Verdict:
        """Without the slices: those that matter are in the check's numbers."""
        listed = tuple(
            Check(each["name"], Result(each["result"]), each["reason"], each["numbers"])
            for each in values["checks"]
        )
        return cls(Result(values["verdict"]), values["reason"], listed)


def judge(evidence: Evidence, settings: GateSettings) -> Verdict:
    """Pure: the same evidence and settings give the same verdict."""
    if evidence.unjudged:
        reason = Check("better", Result.INCONCLUSIVE, evidence.unjudged)
        return _of([reason, checks.latency(evidence, settings), checks.size(evidence, settings)])
    resampling = Resampling.of(evidence.days, settings.resamples, SEED, settings.day_correlation)
    differences = checks.slice_differences(evidence, resampling, settings)
    return _of(
        [
            checks.better(evidence, resampling, settings),
            checks.slices(differences, settings),
            checks.calibration(evidence, resampling, settings),
            checks.latency(evidence, settings),
            checks.size(evidence, settings),
        ],
        differences,
    )


def _of(found: list[Check], differences: list[SliceDifference] | None = None) -> Verdict:
    for result in (Result.FAIL, Result.INCONCLUSIVE):
        deciding = [f"{each.name}: {each.reason}" for each in found if each.result is result]
        if deciding:
            return Verdict(result, "; ".join(deciding), tuple(found), tuple(differences or ()))
    return Verdict(Result.PASS, f"{found[0].name}: {found[0].reason}", tuple(found), tuple(differences or ()))
