"""Whether one window has drifted: every test of it, and what they come to together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glowplug.drift import measures
from glowplug.drift.config import DriftConfig
from glowplug.drift.grid import Counts
from glowplug.drift.nulls import Null, Nulls
from glowplug.drift.profile import Doubles, Profile
from glowplug.drift.significance import benjamini_hochberg
from glowplug.drift.slots import Slot

PSI, KS, MISSING, SCHEMA = "psi", "ks", "missing", "schema"
_MOST_SCHEMA = 5


@dataclass(frozen=True)
class Finding:
    """One test of one feature: `threshold` is the effect that it takes; p is None where the effect alone counts."""

    name: str
    test: str
    statistic: float
    threshold: float
    p_value: float | None

    def document(self) -> dict[str, Any]:
        """As the event has it."""
        return {
            "name": self.name,
            "test": self.test,
            "statistic": _rounded(self.statistic),
            "threshold": self.threshold,
            "p_value": None if self.p_value is None else _rounded(self.p_value),
        }


@dataclass(frozen=True)
class ErrorFinding:
    """Of `rows` joined labels: mean absolute error and root of the mean square, beside the profile's level."""

    rows: int
    mae: float
    rmse: float
    reference_mae: float
    p_value: float
    is_drifted: bool

    @property
    def ratio(self) -> float:
        return self.mae / self.reference_mae


@dataclass(frozen=True)
class Verdict:
    """`is_drifted` is None where too little came to say. `features` are the drifted ones, the worst first."""

    is_drifted: bool | None
    is_calm: bool
    reasons: tuple[str, ...]
    features: tuple[Finding, ...] = ()
    share: float = 0.0
    prediction: tuple[Finding, ...] = ()
    prediction_drifted: bool = False
    error: ErrorFinding | None = None

    @property
    def reason(self) -> str:
        return "; ".join(self.reasons)


@dataclass(frozen=True)
class Reference:
    """What a window is compared with, laid out once: the profile's counts, their bins, and the nulls."""

    profile: Profile
    nulls: Nulls
    counts: Counts = field(repr=False)
    places: Counts = field(repr=False)
    bins: Counts = field(repr=False)

    @classmethod
    def of(cls, profile: Profile, nulls: Nulls) -> Reference:
        counts: Counts = profile.blocks.sum(axis=0)
        places = measures.bins(counts[:, :-1])
        return cls(profile, nulls, counts, places, measures.binned(counts[:, :-1], places))


@dataclass(frozen=True)
class _Measured:
    psi: Doubles
    ks: Doubles
    missing: Doubles


def judge(reference: Reference, window: Slot, config: DriftConfig) -> Verdict:
    """The verdict on a window."""
    strict = _judge(reference, window, config)
    if strict.is_drifted is not False:
        return strict
    lenient = _judge(reference, window, config.relaxed())
    return _with_calm(strict, lenient.is_drifted is False)


def _judge(reference: Reference, window: Slot, config: DriftConfig) -> Verdict:
    measured = _measure(reference, window.counts)
    has_features = window.rows >= config.min_rows
    has_predictions = int(window.counts[-1].sum()) >= config.min_rows
    findings = _features(reference, measured, config) if has_features else []
    findings += _schema(window, config)
    drifted = {finding.name for finding in findings if finding.test in (PSI, KS, MISSING)}
    share = float(
        sum(
            part
            for name, part in zip(reference.profile.names, reference.profile.shares, strict=True)
            if name in drifted
        )
    )
    prediction, prediction_drifted = (
        _prediction(reference, measured, config) if has_predictions else ((), False)
    )
    error = _error(reference, window, config)
    reasons = _reasons(findings, share, prediction, prediction_drifted, error, config)
    can_say = has_features or has_predictions or error is not None or window.requests >= config.min_rows
    return Verdict(
        is_drifted=bool(reasons) if can_say else None,
        is_calm=False,
        reasons=tuple(reasons) if reasons or can_say else (f"only {window.rows} rows",),
        features=tuple(sorted(findings, key=lambda found: -found.statistic / found.threshold)),
        share=share,
        prediction=prediction,
        prediction_drifted=prediction_drifted,
        error=error,
    )


def _with_calm(verdict: Verdict, is_calm: bool) -> Verdict:
    return Verdict(
        verdict.is_drifted, is_calm, verdict.reasons, verdict.features, verdict.share,
        verdict.prediction, verdict.prediction_drifted, verdict.error,
    )  # fmt: skip


def _measure(reference: Reference, counts: Counts) -> _Measured:
    return _Measured(
        psi=measures.psi(measures.binned(counts[:, :-1], reference.places), reference.bins),
        ks=measures.ks(counts[:, :-1], reference.counts[:, :-1]),
        missing=np.abs(measures.missing(counts) - measures.missing(reference.counts)),
    )


def _features(reference: Reference, measured: _Measured, config: DriftConfig) -> list[Finding]:
    """Those whose effect is large enough, and that are significant among all tests of all features."""
    tests: list[Finding] = []
    nulls = reference.nulls
    for place, name in enumerate(reference.profile.names):
        for test, values, null, threshold in (
            (PSI, measured.psi, nulls.psi, config.min_psi),
            (KS, measured.ks, nulls.ks, config.min_ks),
            (MISSING, measured.missing, nulls.missing, config.min_missing),
        ):
            tests.append(_finding(name, test, values, null, threshold, place))
    rejected = benjamini_hochberg(
        [test.p_value for test in tests if test.p_value is not None], config.feature_rate
    )
    return [
        test
        for test, is_rejected in zip(tests, rejected, strict=True)
        if is_rejected and test.statistic >= test.threshold
    ]


def _finding(name: str, test: str, values: Doubles, null: Null, threshold: float, place: int) -> Finding:
    return Finding(name, test, float(values[place]), threshold, null.p_value(values, place))


def _schema(window: Slot, config: DriftConfig) -> list[Finding]:
    if not window.requests:
        return []
    share = sum(window.unfit.values()) / window.requests
    if share < config.min_unfit:
        return []
    # As many kinds as are worth reading; together they crossed the limit.
    return [
        Finding(problem, SCHEMA, count / window.requests, config.min_unfit, None)
        for problem, count in window.unfit.most_common(_MOST_SCHEMA)
    ]


def _prediction(
    reference: Reference, measured: _Measured, config: DriftConfig
) -> tuple[tuple[Finding, ...], bool]:
    place = len(reference.profile.names)
    found = (
        _finding("prediction", PSI, measured.psi, reference.nulls.psi, config.min_psi, place),
        _finding("prediction", KS, measured.ks, reference.nulls.ks, config.min_ks, place),
    )
    rejected = benjamini_hochberg(
        [finding.p_value for finding in found if finding.p_value is not None], config.level
    )
    is_drifted = any(
        is_rejected and finding.statistic >= finding.threshold
        for finding, is_rejected in zip(found, rejected, strict=True)
    )
    return found, is_drifted


def _error(reference: Reference, window: Slot, config: DriftConfig) -> ErrorFinding | None:
    null, errors = reference.nulls.error, reference.profile.errors
    if null is None or errors is None or window.labelled < config.min_labels:
        return None
    mae = window.absolute / window.labelled
    # Few labels make a mean uncertain by themselves, beside what days differ by.
    noise = max(0.0, window.squares / window.labelled / max(mae, 1e-12) ** 2 - 1) / window.labelled
    p_value = null.p_value(np.array([mae]), noise=noise)
    is_drifted = p_value <= config.level and mae >= config.min_error_ratio * errors.level
    rmse = math.sqrt(window.squares / window.labelled)
    return ErrorFinding(window.labelled, mae, rmse, errors.level, p_value, is_drifted)


def _reasons(
    findings: list[Finding],
    share: float,
    prediction: tuple[Finding, ...],
    prediction_drifted: bool,
    error: ErrorFinding | None,
    config: DriftConfig,
) -> list[str]:
    reasons = []
    if error is not None and error.is_drifted:
        reasons.append(
            f"the error is {error.ratio:.2f} times the reference's, p = {error.p_value:.2g}, of {error.rows} labels"
        )
    if prediction_drifted:
        said = ", ".join(
            f"{found.test} {found.statistic:.2f}, p = {found.p_value:.2g}" for found in prediction
        )
        reasons.append(f"the predictions are others: {said}")
    if share >= config.min_share:
        reasons.append(f"{100 * share:.0f} % of the features have drifted")
    for test, what in ((MISSING, "other rows without a value"), (SCHEMA, "requests that do not fit")):
        names = [found for found in findings if found.test == test]
        if names:
            first = names[0]
            reasons.append(f"{what}: {first.name}, {100 * first.statistic:.0f} %")
    return reasons


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
