"""The flights model: gradient-boosted trees for the arrival delay in minutes, and the naive baselines.

Pseudo-Huber loss: nearly as robust as the absolute error, which is what is reported, but smooth, so that trees need
no second pass over the leaves. One thread: on a busy machine OpenMP's spinning threads cost 20 times the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xgboost

from glowplug.errors import FeatureError
from glowplug.features.offline_training import TrainingSet
from glowplug.features.view import FeatureView

MODEL_FILE = "model.ubj"
VIEW_FILE = "feature_view.yaml"
VIEW_ATTRIBUTE = "glowplug.feature_view"
SCHEMA_ATTRIBUTE = "glowplug.schema_hash"

PARAMS: dict[str, Any] = {
    "objective": "reg:pseudohubererror",
    "huber_slope": 20,
    "eval_metric": "mae",
    "tree_method": "hist",
    "max_depth": 6,
    "max_bin": 64,
    "eta": 0.08,
    "min_child_weight": 20,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "seed": 20130101,
    "nthread": 1,
}
ROUNDS = 250
PATIENCE = 25

Progress = Callable[[str, int, int], None]
Floats: TypeAlias = npt.NDArray[np.float64]
Float32s: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Baselines:
    """What one would predict without a model, in minutes: constants, and the route's mean in the training set."""

    mean: float
    median: float
    route_mean: dict[str, float]

    @classmethod
    def fit(cls, delays: Floats, routes: npt.NDArray[Any]) -> Baselines:
        names, places = np.unique(routes.astype(str), return_inverse=True)
        means = np.bincount(places, weights=delays) / np.bincount(places)
        by_route = {str(name): float(mean) for name, mean in zip(names, means, strict=True)}
        return cls(float(delays.mean()), float(np.median(delays)), by_route)

    def errors(self, delays: Floats, routes: npt.NDArray[Any]) -> dict[str, float]:
        """Mean absolute error in minutes of each baseline."""
        by_route = np.array([self.route_mean.get(str(route), self.mean) for route in routes])
        return {
            "mean": mean_absolute_error(np.full(len(delays), self.mean), delays),
            "median": mean_absolute_error(np.full(len(delays), self.median), delays),
            "route_mean": mean_absolute_error(by_route, delays),
        }


@dataclass(frozen=True)
class Trained:
    """`trees` of them; errors in minutes on the held-out end of the training months."""

    booster: xgboost.Booster
    trees: int
    baselines: Baselines
    validation_mae: float
    validation_baselines: dict[str, float]

    def metrics(self) -> dict[str, float]:
        baselines = {f"validation_mae_{name}": value for name, value in self.validation_baselines.items()}
        return {"validation_mae": self.validation_mae, "trees": float(self.trees), **baselines}


def mean_absolute_error(predicted: Floats, actual: Floats) -> float:
    return float(np.abs(predicted - actual).mean())


@dataclass(frozen=True)
class Part:
    """Rows to fit or to validate with: `features` float32 [n, view], `delays` in minutes [n], `routes` [n]."""

    features: Float32s
    delays: Floats
    routes: npt.NDArray[Any]


def train(
    view: FeatureView, data: TrainingSet, validation_from_ms: int, progress: Progress, rounds: int = ROUNDS
) -> Trained:
    """Fit on rows before `validation_from_ms`, stop early on the rows from then on. The label is `arr_delay`.

    Rows are in time's order or not, it does not matter. Raises `FeatureError` when either part is empty.
    """
    delays: Floats = np.asarray(data.extras["arr_delay"], dtype=np.float64)
    routes = data.extras["route"]
    is_held_out = data.event_ms >= validation_from_ms
    if is_held_out.all() or not is_held_out.any():
        raise FeatureError(
            f"{len(delays)} training rows, {int(is_held_out.sum())} of them held out: must be some"
        )
    known, held_out = (
        Part(data.features[mask], delays[mask], routes[mask]) for mask in (~is_held_out, is_held_out)
    )
    return fit(view, known, held_out, progress, rounds)


def fit(view: FeatureView, known: Part, held_out: Part, progress: Progress, rounds: int = ROUNDS) -> Trained:
    """Fit on `known`, stop early on `held_out`. The same parts give the same model."""
    names = list(view.feature_names)
    matrix = _matrix(known.features, known.delays, names)
    booster = xgboost.train(
        PARAMS,
        matrix,
        rounds,
        evals=[(_matrix(held_out.features, held_out.delays, names, like=matrix), "validation")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
        callbacks=[_Reporter(progress, rounds)],
    )
    trees = booster.best_iteration + 1
    best = booster[:trees]
    best.set_attr(**{VIEW_ATTRIBUTE: view.name, SCHEMA_ATTRIBUTE: view.schema_hash})
    progress("training", rounds, rounds)
    baselines = Baselines.fit(known.delays, known.routes)
    return Trained(
        booster=best,
        trees=trees,
        baselines=baselines,
        validation_mae=mean_absolute_error(best.inplace_predict(held_out.features), held_out.delays),
        validation_baselines=baselines.errors(held_out.delays, held_out.routes),
    )


def save(trained: Trained, view: FeatureView, directory: Path) -> Path:
    """Write the model and its feature view into `directory`, each by rename; returns the model's path."""
    directory.mkdir(parents=True, exist_ok=True)
    _replace(directory / VIEW_FILE, view.text.encode())
    _replace(directory / MODEL_FILE, bytes(trained.booster.save_raw("ubj")))
    return directory / MODEL_FILE


def _matrix(
    features: Any, delays: Floats, names: list[str], like: xgboost.QuantileDMatrix | None = None
) -> xgboost.QuantileDMatrix:
    return xgboost.QuantileDMatrix(
        features, delays, feature_names=names, max_bin=PARAMS["max_bin"], nthread=PARAMS["nthread"], ref=like
    )


def _replace(place: Path, content: bytes) -> None:
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(place)


class _Reporter(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # xgboost is untyped here
    def __init__(self, progress: Progress, rounds: int) -> None:
        super().__init__()
        self._progress = progress
        self._rounds = rounds

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self._progress("training", epoch + 1, self._rounds)
        return False
