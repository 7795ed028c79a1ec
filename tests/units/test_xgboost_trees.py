"""The compiled form of a booster's trees: the same function as the booster's, or not used."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from units.xgboost_models import FEATURES, NAMES, ROWS, ask, loaded, train, xgboost

from glowplug.errors import StorageError
from glowplug.wire import Tensor

onnxruntime: Any = pytest.importorskip("onnxruntime")
from glowplug_xgboost import choice, tree_ensemble  # noqa: E402
from glowplug_xgboost.choice import AUTO, BOOSTER, COMPILED, Timing, choose, decide, measure  # noqa: E402
from glowplug_xgboost.compiled import CompiledTrees  # noqa: E402
from glowplug_xgboost.forest import Forest, read_forest  # noqa: E402
from glowplug_xgboost.native import Booster  # noqa: E402
from glowplug_xgboost.objectives import Unsupported  # noqa: E402
from glowplug_xgboost.probes import difference, probe_rows  # noqa: E402
from glowplug_xgboost.ubjson import decode  # noqa: E402

# The newest for Python 3.10 is 1.23.
pytestmark = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24),
    reason="computes some forests wrong; the unit finds that at its start",
)

POSITIVE = np.abs(ROWS[:, 0]) + 0.1
CLASSES = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 0)
IS_POSITIVE = ROWS[:, 0] > 0.2
TARGETS: dict[str, Any] = {
    "reg:squarederror": ROWS[:, 0] * 3 + 100,
    "reg:logistic": 1 / (1 + np.exp(-ROWS[:, 0])),
    "reg:squaredlogerror": POSITIVE,
    "reg:pseudohubererror": ROWS[:, 0],
    "reg:absoluteerror": ROWS[:, 0],
    "reg:gamma": POSITIVE,
    "reg:tweedie": POSITIVE,
    "count:poisson": POSITIVE.round(),
    "survival:cox": POSITIVE,
    "binary:logistic": IS_POSITIVE,
    "binary:logitraw": IS_POSITIVE,
    "binary:hinge": IS_POSITIVE,
    "multi:softprob": CLASSES,
    "multi:softmax": CLASSES,
    "rank:ndcg": IS_POSITIVE.astype(int),
    "rank:map": IS_POSITIVE.astype(int),
    "rank:pairwise": IS_POSITIVE.astype(int),
}
# Rows are drawn this many times more densely than the unit itself draws them.
PROBES = 1000


def native(booster: Any) -> Booster:
    return Booster(bytes(booster.save_raw("ubj")), nthread=1)


def forest_of(booster: Booster) -> Forest:
    return read_forest(decode(booster.saved()))


def fit(labels: Any, rows: Any = ROWS, data: Any = None, count: int = 10, **parameters: Any) -> Booster:
    options = {"max_depth": 4, "nthread": 1, "verbosity": 0, **parameters}
    with xgboost.config_context(verbosity=0):
        return native(xgboost.train(options, xgboost.DMatrix(rows, labels, **(data or {})), count))


def assert_same(booster: Booster) -> CompiledTrees:
    """All at once, and row by row."""
    forest = forest_of(booster)
    trees = CompiledTrees(forest)
    rows = probe_rows(forest, PROBES)
    with np.errstate(all="ignore"):
        expected = booster.predict(rows)
        assert difference(expected, trees.predict(rows)) == ""
        for row in range(0, len(rows), 20):
            assert difference(expected[row : row + 1], trees.predict(rows[row : row + 1])) == ""
    return trees


@pytest.mark.parametrize("objective", list(TARGETS))
def test_every_objective(objective: str) -> None:
    more: dict[str, Any] = {"num_class": 3} if objective.startswith("multi") else {}
    data = {"group": [20] * 10} if objective.startswith("rank") else {}
    assert_same(fit(TARGETS[objective], data=data, objective=objective, **more))


GAPS = np.where(np.random.default_rng(3).random(ROWS.shape) < 0.2, np.nan, ROWS).astype(np.float32)


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (ROWS[:, 0] * 1e7 + 3e8, {}),
        (ROWS[:, 0], {"num_parallel_tree": 3, "subsample": 0.5}),
        (ROWS[:, :2], {}),
        (ROWS[:, 0], {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}),
        (IS_POSITIVE, {"objective": "binary:logistic", "base_score": 0.01}),
        # Nodes that pruning has cut off stay in the file.
        (ROWS[:, 0] + ROWS[:, 1], {"tree_method": "exact", "max_depth": 8, "gamma": 2}),
        # Trees that are one leaf each.
        (ROWS[:, 0], {"gamma": 1e9}),
        (ROWS[:, 0], {"max_depth": 0, "max_leaves": 20, "grow_policy": "lossguide"}),
    ],
    ids=["large", "forest", "targets", "quantiles", "base score", "pruned", "leaves", "lossguide"],
)
def test_shapes_of_trees(labels: Any, more: dict[str, Any]) -> None:
    assert_same(fit(labels, **more))
    assert_same(fit(labels, GAPS, **more))


@pytest.mark.parametrize("one_hot_below", [1, 100])
def test_categories(one_hot_below: int) -> None:
    rows = GAPS.copy()
    rows[:, 0] = np.arange(len(rows)) % 40
    rows[:, 1] = np.arange(len(rows)) % 3
    rows[::17, 0] = np.nan
    booster = fit(
        np.sin(np.nan_to_num(rows[:, 0]) * 7) + rows[:, 1],
        rows,
        {"feature_types": ["c", "c", "q", "q", "q"], "enable_categorical": True},
        max_cat_to_onehot=one_hot_below,
    )
    assert forest_of(booster).categories
    trees = assert_same(booster)
    # Decimals are cut off; what is negative, unknown or huge is no category.
    odd = np.repeat(rows[:1], 8, axis=0)
    odd[:, 0] = [2.7, -0.5, -3, 39.9, 40, 1e6, np.inf, np.nan]
    kept = odd.copy()
    assert difference(booster.predict(odd), trees.predict(odd)) == ""
    np.testing.assert_array_equal(odd, kept)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    depth=st.integers(1, 7),
    count=st.integers(1, 12),
    objective=st.sampled_from(["reg:squarederror", "binary:logistic", "multi:softprob", "count:poisson"]),
    gaps=st.booleans(),
)
def test_any_booster(seed: int, depth: int, count: int, objective: str, gaps: bool) -> None:
    random = np.random.default_rng(seed)
    # Few different values: rows lie on thresholds all the time.
    rows = random.integers(-3, 4, (80, FEATURES)).astype(np.float32)
    if gaps:
        rows[random.random(rows.shape) < 0.2] = np.nan
    more = {"num_class": 3} if objective.startswith("multi") else {}
    labels = random.integers(0, 3 if more else 2, len(rows))
    booster = fit(labels, rows, count=count, max_depth=depth, objective=objective, **more)
    trees = assert_same(booster)
    assert difference(booster.predict(rows), trees.predict(rows)) == ""


def test_survival_times() -> None:
    data = {"label_lower_bound": POSITIVE, "label_upper_bound": POSITIVE + 1}
    assert_same(fit(None, data=data, objective="survival:aft"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"booster": "dart"}, "dart boosters are not compiled"),
        ({"multi_strategy": "multi_output_tree", "tree_method": "hist"}, "multi_output_tree"),
    ],
)
def test_what_is_not_compiled_has_a_reason(more: dict[str, Any], said: str) -> None:
    found = choose(fit(ROWS[:, :2] if "multi_strategy" in more else ROWS[:, 0], **more), COMPILED)
    assert said in found.reason
    assert (found.trees, found.max_rows) == (None, 0)


def test_documents_that_are_not_as_expected_are_not_compiled() -> None:
    document = decode(native(train()).saved())
    learner = document["learner"]
    for path, value, said in (
        (("objective", "name"), "my:own", "the objective my:own"),
        (("learner_model_param", "base_score"), "[1,2,3]", "base_score has 3 numbers for 1 outputs"),
        (("learner_model_param", "base_score"), "x", "not as expected"),
        (("gradient_booster", "model"), {}, "not as expected"),
        (("gradient_booster", "model"), {"trees": []}, "no trees"),
    ):
        changed = {**learner, path[0]: {**learner[path[0]], path[1]: value}}
        with pytest.raises(Unsupported, match=said.replace("[", r"\[")):
            read_forest({"learner": changed})


def refused_as_wrong(booster: Booster) -> bool:
    found = choose(booster)
    assert (found.trees, found.max_rows) == (None, 0), found.reason
    return "the compiled form is wrong: it differs from the booster in" in found.reason


def change_ints(monkeypatch: pytest.MonkeyPatch, name: str, change: Any) -> None:
    real = tree_ensemble._ints
    monkeypatch.setattr(
        tree_ensemble, "_ints", lambda key, ids: real(key, change(ids) if key == name else ids)
    )


def test_a_form_that_is_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # x <= t for x < t: only a row on a threshold shows it.
    with monkeypatch.context() as patched:
        patched.setattr(tree_ensemble, "_BRANCH_LT", 0)
        assert refused_as_wrong(native(train()))
    with monkeypatch.context() as patched:
        change_ints(patched, "tree_roots", lambda ids: ids[:-1])
        assert refused_as_wrong(native(train()))
    with monkeypatch.context() as patched:
        change_ints(patched, "nodes_missing_value_tracks_true", lambda ids: 1 - ids)
        assert refused_as_wrong(fit(ROWS[:, 0], GAPS))


def test_the_bytes_are_a_valid_onnx_model() -> None:
    onnx: Any = pytest.importorskip("onnx")
    made = onnx.load_from_string(tree_ensemble.encode_forest(forest_of(native(train("multi:softprob")))))
    onnx.checker.check_model(made, full_check=True)
    assert [each.name for each in made.graph.input] == ["rows"]


def test_decisions() -> None:
    def timings(*ratios: float) -> list[Timing]:
        return [Timing(2**index, 1e-4, 1e-4 * ratio) for index, ratio in enumerate(ratios)]

    assert decide(timings(0.95)).max_rows == 0
    assert (
        "the booster is as fast for one row; 1 row: 95 µs, the booster 100 µs" in decide(timings(0.95)).reason
    )
    assert decide(timings(0.1, 0.5, 1.0)).max_rows == 2
    assert decide(timings(0.1, 0.5, 0.8)).max_rows == 4
    assert "4 rows: 80 µs, the booster 100 µs" in decide(timings(0.1, 0.5, 0.8)).reason


def test_measuring_takes_the_least_and_ends_where_the_compiled_form_loses() -> None:
    clock = [0.0]
    noise = itertools.cycle((0.003, 0.0, 0.001))

    def booster(rows: Any) -> None:
        clock[0] += 70e-6 + len(rows) * 1e-6 + next(noise)

    def compiled(rows: Any) -> None:
        clock[0] += 5e-6 + len(rows) * 4e-6 + next(noise)

    found = measure(booster, compiled, np.zeros((256, 2), np.float32), lambda: clock[0])
    assert [timing.rows for timing in found] == [1, 2, 4, 8, 16, 32]
    assert found[0].booster_s == pytest.approx(71e-6)
    assert found[0].compiled_s == pytest.approx(9e-6)
    assert decide(found).max_rows == 16


def test_few_rows_go_to_the_trees_and_many_to_the_booster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        choice, "measure", lambda *_: [Timing(1, 2.0, 1.0), Timing(8, 2.0, 1.0), Timing(16, 1, 2)]
    )
    model = loaded(tmp_path, train(), trees=AUTO)
    assert model.choice.max_rows == 8

    def count(of: Any) -> list[int]:
        asked, real = [], of.predict

        def predict(rows: Any) -> Any:
            asked.append(len(rows))
            return real(rows)

        monkeypatch.setattr(of, "predict", predict)
        return asked

    by_booster, by_trees = count(model._booster), count(model.choice.trees)
    expected = train().predict(xgboost.DMatrix(ROWS, feature_names=NAMES))
    for size in (1, 8, 9, 200, 0):
        found = model.predict(ask(Tensor.from_numpy("x", ROWS[:size]))).output("predict").data
        np.testing.assert_allclose(found, expected[:size], rtol=1e-6)
    assert by_trees == [1, 8]
    assert by_booster == [9, 200]


def test_one_of_the_two_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(tmp_path, train(), trees=BOOSTER)
    assert (model.choice.trees, model.choice.max_rows) == (None, 0)
    assert loaded(tmp_path, train(), trees=COMPILED).choice.max_rows >= 10**9
    with xgboost.config_context(verbosity=0):
        dart = train(booster="dart")
    assert loaded(tmp_path, dart, trees=AUTO).choice.reason == "dart boosters are not compiled, only gbtree"
    with pytest.raises(StorageError, match="dart boosters are not compiled") as caught:
        loaded(tmp_path, dart, trees=COMPILED)
    assert "--trees=auto" in caught.value.hint
    # None there makes `import` fail.
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime cannot be imported" in loaded(tmp_path, train()).choice.reason


def test_predictions_of_one_row_are_ones_own(tmp_path: Path) -> None:
    model = loaded(tmp_path, train("binary:logistic"), trees=COMPILED)
    read_only = ROWS[:1].copy()
    read_only.setflags(write=False)
    first = model.predict(ask(Tensor.from_numpy("x", read_only))).output("predict").data
    value = float(first[0])
    model.predict(ask(Tensor.from_numpy("x", ROWS[50:51])))
    assert float(first[0]) == value
