"""What XGBoost makes of a sum of leaves (the margin), and of `base_score` before it: by objective. Pure.

Source: the objectives' PredTransform and ProbToMargin, as https://xgboost.readthedocs.io/en/stable/parameter.html
(Learning Task Parameters) describes them. Objectives that are not listed are not compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# XGBoost's own bound, below which exp(-x) is finite in float32.
MAX_EXPONENT = 88.7


class Unsupported(Exception):
    """Why a booster has no compiled form; not an error, since the booster predicts."""


@dataclass(frozen=True)
class Objective:
    """`margins` turns base scores into what sums begin with; `output` sums [n, groups] into predictions.

    Both take and return float32; `output` may overwrite what it is given, and returns [n] or [n, groups].
    """

    margins: Callable[[Any], Any]
    output: Callable[[Any], Any]


def _same(scores: Any) -> Any:
    return scores


def _logit(scores: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.log(np.float32(1) / scores - np.float32(1))


def _log(scores: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(scores)


def _flat(sums: Any) -> Any:
    """[n, 1] is answered as [n], as the library does it."""
    return sums[:, 0] if sums.shape[1] == 1 else sums


def _sigmoid(sums: Any) -> Any:
    if sums.size == 1:
        # 1 µs; what follows takes 7, however few the numbers.
        return np.array([1 / (1 + math.exp(min(-sums.item(), MAX_EXPONENT)))], dtype=np.float32)
    np.negative(sums, out=sums)
    np.minimum(sums, np.float32(MAX_EXPONENT), out=sums)
    np.exp(sums, out=sums)
    sums += np.float32(1)
    return _flat(np.reciprocal(sums, out=sums))


def _exp(sums: Any) -> Any:
    with np.errstate(over="ignore"):
        return _flat(np.exp(sums, out=sums))


def _softmax(sums: Any) -> Any:
    sums -= sums.max(axis=1, keepdims=True)
    np.exp(sums, out=sums)
    sums /= sums.sum(axis=1, keepdims=True)
    return sums


def _largest(sums: Any) -> Any:
    return sums.argmax(axis=1).astype(np.float32)


def _hinge(sums: Any) -> Any:
    return _flat((sums > 0).astype(np.float32))


_IDENTITY = Objective(_same, _flat)
_LOG = Objective(_log, _exp)
_LOGISTIC = Objective(_logit, _sigmoid)

OBJECTIVES = {
    "reg:squarederror": _IDENTITY,
    "reg:squaredlogerror": _IDENTITY,
    "reg:pseudohubererror": _IDENTITY,
    "reg:absoluteerror": _IDENTITY,
    "reg:quantileerror": _IDENTITY,
    "reg:logistic": _LOGISTIC,
    "reg:gamma": _LOG,
    "reg:tweedie": _LOG,
    "count:poisson": _LOG,
    "survival:cox": _LOG,
    "survival:aft": _LOG,
    "binary:logistic": _LOGISTIC,
    "binary:logitraw": _IDENTITY,
    "binary:hinge": Objective(_same, _hinge),
    "multi:softprob": Objective(_same, _softmax),
    "multi:softmax": Objective(_same, _largest),
    "rank:ndcg": _IDENTITY,
    "rank:map": _IDENTITY,
    "rank:pairwise": _IDENTITY,
}
