"""The trees of a booster as flat arrays, and what makes a prediction of their sums.

A value: read from the booster's own document once, checked, and not changed. What is not understood for certain is
refused, and the booster itself predicts then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glowplug_xgboost.objectives import OBJECTIVES, Objective, Unsupported

MAX_NODES = 4_000_000
MAX_CATEGORIES = 1_000_000


@dataclass(frozen=True)
class Forest:
    """All nodes of all trees, one after another; `roots` are the first nodes of the trees. [nodes] unless said.

    A row goes left where its feature is below `value` (float32), or, at a categorical split, where it is not in the
    node's `categories`; a missing one where `is_left_default`. A leaf has no children (-1), and its `value` is added
    to `targets` of its tree.
    """

    width: int
    objective: Objective
    margins: Any  # float32 [groups], what the sums begin with
    roots: Any  # int64 [trees]
    targets: Any  # int64 [trees]
    left: Any  # int64
    right: Any  # int64
    feature: Any  # int64
    value: Any  # float32
    is_left_default: Any  # bool
    categories: dict[int, Any]  # node to its float32 categories

    @property
    def is_leaf(self) -> Any:
        """bool [nodes]."""
        return self.left < 0

    @property
    def category_features(self) -> list[int]:
        """The features that are split by category."""
        return sorted({int(self.feature[node]) for node in self.categories})


def read_forest(document: dict[str, Any]) -> Forest:
    """The trees of a booster's document. Raises Unsupported with the reason why they are not compiled."""
    try:
        learner = document["learner"]
        name = learner["gradient_booster"]["name"]
        if name != "gbtree":
            raise Unsupported(f"{name} boosters are not compiled, only gbtree")
        objective_name = learner["objective"]["name"]
        objective = OBJECTIVES.get(objective_name)
        if objective is None:
            raise Unsupported(f"the objective {objective_name} is not compiled")
        model = learner["gradient_booster"]["model"]
        parameters = learner["learner_model_param"]
        groups = max(1, int(parameters["num_class"]), int(parameters.get("num_target", "1")))
        margins = objective.margins(_base_scores(parameters["base_score"], groups))
        return _joined(model, int(parameters["num_feature"]), objective, margins)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Unsupported(
            f"the booster's document is not as expected ({type(error).__name__}: {error})"
        ) from error


def _base_scores(text: str, groups: int) -> Any:
    """float32 [groups]. XGBoost 3.1 writes a list of one or of one a group, older ones write a number."""
    found = json.loads(text) if text.startswith("[") else [float(text)]
    if len(found) not in (1, groups):
        raise Unsupported(f"base_score has {len(found)} numbers for {groups} outputs")
    return np.broadcast_to(np.array(found, dtype=np.float32), groups)


def _joined(model: dict[str, Any], width: int, objective: Objective, margins: Any) -> Forest:
    trees: Sequence[dict[str, Any]] = model["trees"]
    if not trees:
        raise Unsupported("the booster has no trees")
    if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in trees):
        raise Unsupported("trees with several outputs each (multi_output_tree) are not compiled")
    sizes = np.array([len(tree["left_children"]) for tree in trees], dtype=np.int64)
    if int(sizes.sum()) > MAX_NODES:
        raise Unsupported(f"{sizes.sum()} nodes are too many to compile at start, at most {MAX_NODES}")
    roots = np.cumsum(sizes) - sizes
    shift = np.repeat(roots, sizes)

    def column(name: str, dtype: Any) -> Any:
        return np.concatenate([tree[name] for tree in trees]).astype(dtype)

    left, right = column("left_children", np.int64), column("right_children", np.int64)
    is_leaf = left < 0
    return Forest(
        width,
        objective,
        margins,
        roots,
        np.asarray(model["tree_info"], dtype=np.int64),
        np.where(is_leaf, -1, left + shift),
        np.where(is_leaf, -1, right + shift),
        np.where(is_leaf, 0, column("split_indices", np.int64)),
        column("split_conditions", np.float32),
        column("default_left", np.bool_),
        _categories(trees, roots),
    )


def _categories(trees: Sequence[dict[str, Any]], roots: Any) -> dict[int, Any]:
    found = {}
    for root, tree in zip(roots.tolist(), trees, strict=True):
        nodes, sizes, starts = (
            tree.get(name, ()) for name in ("categories_nodes", "categories_sizes", "categories_segments")
        )
        for node, size, start in zip(nodes, sizes, starts, strict=True):
            members = np.asarray(tree["categories"][start : start + size], dtype=np.float32)
            found[root + int(node)] = members
    if sum(len(members) for members in found.values()) > MAX_CATEGORIES:
        raise Unsupported(f"the categorical splits have more than {MAX_CATEGORIES} members")
    return found
