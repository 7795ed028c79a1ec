"""A forest as the bytes of an ONNX model of one node, `TreeEnsemble` of ai.onnx.ml version 5. Pure.

Written by hand since importing `onnx` takes longer than everything else that the unit does before it is ready.
The sums begin with `base_score`, as a first tree of one leaf, and leaves are added in the order of the trees: float32
sums are then those of XGBoost to the last bit.
Source: https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html and the field numbers of onnx.proto.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glowplug.wire.packed import pack_varints
from glowplug.wire.protobuf import field_bytes, field_text, field_varint
from glowplug_xgboost.forest import Forest
from glowplug_xgboost.objectives import Unsupported

INPUT, OUTPUT = "rows", "sums"
IR_VERSION, ML_OPSET, OPSET = 9, 5, 17
ML_DOMAIN = "ai.onnx.ml"

# TensorProto.DataType
_FLOAT, _UINT8 = 1, 2
# AttributeProto.AttributeType
_INT, _TENSOR, _INTS = 2, 4, 7
# nodes_modes: true is left for BRANCH_LT (x < value), and right for BRANCH_MEMBER (x in the set), XGBoost's order.
_BRANCH_LT, _BRANCH_MEMBER = 1, 6


def encode_forest(forest: Forest) -> bytes:
    """The model: `rows` float32 [n, width] to `sums` float32 [n, groups]. Raises Unsupported where no tree is one."""
    groups = len(forest.margins)
    node = b"".join(
        (
            field_text(1, INPUT),
            field_text(2, OUTPUT),
            field_text(4, "TreeEnsemble"),
            field_text(7, ML_DOMAIN),
            *(field_bytes(5, attribute) for attribute in _attributes(forest)),
            field_bytes(5, field_text(1, "n_targets") + field_varint(3, groups) + field_varint(20, _INT)),
        )
    )
    graph = b"".join(
        (
            field_bytes(1, node),
            field_text(2, "trees"),
            field_bytes(11, _value_info(INPUT, forest.width)),
            field_bytes(12, _value_info(OUTPUT, groups)),
        )
    )
    return b"".join(
        (
            field_varint(1, IR_VERSION),
            field_bytes(8, field_text(1, ML_DOMAIN) + field_varint(2, ML_OPSET)),
            field_bytes(8, field_varint(2, OPSET)),
            field_bytes(7, graph),
        )
    )


def _attributes(forest: Forest) -> list[bytes]:
    """The node's arrays. Inner nodes and leaves are numbered apart, both in the order of the trees.

    Leaves are in the order of a walk that turns to the true side first: onnxruntime 1.23 takes that for granted.

    The operator wants an inner node at every root: above a leaf alone there is one that has it twice. Such are the
    base margins, which come first, and the trees that never split.
    """
    is_leaf, inner, leaf = _used(forest)
    based = np.flatnonzero(forest.margins != 0)
    inner_number, leaf_number = (np.zeros(len(is_leaf), np.int64) for _ in range(2))
    inner_number[inner] = len(based) + np.arange(len(inner))
    times = 1 + np.isin(leaf, forest.roots)
    leaf_number[leaf] = 2 * len(based) + np.cumsum(times) - times
    leaf = np.repeat(leaf, times)
    lone = is_leaf[inner]
    true, false = (np.where(lone, inner, children[inner]) for children in _children(forest))
    is_set = _sets(forest)[inner]
    target_of = np.repeat(forest.targets, np.diff(np.append(forest.roots, len(forest.left))))

    def number(nodes: Any) -> Any:
        return np.where(is_leaf[nodes], leaf_number[nodes], inner_number[nodes])

    first = np.arange(len(based))
    zeros, ones = np.zeros(len(based), np.int64), np.ones(len(based), np.int64)

    def after(base: Any, values: Any) -> Any:
        return np.concatenate((base, values))

    modes = np.where(is_set, _BRANCH_MEMBER, _BRANCH_LT)
    splits = np.where(is_set | lone, 0, forest.value[inner])
    attributes = [
        _ints("tree_roots", after(first, inner_number[forest.roots])),
        _ints("nodes_featureids", after(zeros, np.where(lone, 0, forest.feature[inner]))),
        _ints("nodes_truenodeids", after(2 * first, number(true))),
        _ints("nodes_falsenodeids", after(2 * first + 1, number(false) + lone)),
        _ints("nodes_trueleafs", after(ones, is_leaf[true])),
        _ints("nodes_falseleafs", after(ones, is_leaf[false])),
        _ints("nodes_missing_value_tracks_true", after(zeros, forest.is_left_default[inner] != is_set)),
        _tensor("nodes_splits", _FLOAT, after(zeros, splits).astype("<f4")),
        _tensor("nodes_modes", _UINT8, after(ones * _BRANCH_LT, modes).astype("u1")),
        _ints("leaf_targetids", after(based.repeat(2), target_of[leaf])),
        _tensor(
            "leaf_weights", _FLOAT, after(forest.margins[based.repeat(2)], forest.value[leaf]).astype("<f4")
        ),
    ]
    if forest.categories:
        # A NaN ends each node's set, in the order of the nodes.
        sets = [part for node in inner[is_set].tolist() for part in (forest.categories[node], [np.nan])]
        attributes.append(_tensor("membership_values", _FLOAT, np.concatenate(sets).astype("<f4")))
    return attributes


def _sets(forest: Forest) -> Any:
    """bool [nodes], the categorical splits."""
    is_set = np.zeros(len(forest.left), dtype=np.bool_)
    is_set[list(forest.categories)] = True
    return is_set


def _children(forest: Forest) -> tuple[Any, Any]:
    """Where a node goes if its test is true, and if not: a row in a set goes right."""
    is_set = _sets(forest)
    return np.where(is_set, forest.right, forest.left), np.where(is_set, forest.left, forest.right)


def _used(forest: Forest) -> tuple[Any, Any, Any]:
    """bool [nodes] of leaves; roots and inner nodes; and leaves in order: without what pruning has cut off its tree."""
    count = len(forest.left)
    is_used = np.zeros(count, dtype=np.bool_)
    # Where a walk passes: half of a node's share of its tree is the true side's. Enough for a depth of 62.
    place = np.zeros(count, dtype=np.uint64)
    true, false = _children(forest)
    level, share, seen = forest.roots, 1 << 62, 0
    while len(level):
        seen += len(level)
        if seen > count:
            raise Unsupported("the booster's trees are not trees: a node has two parents")
        is_used[level] = True
        inner = level[~forest.is_leaf[level]]
        place[true[inner]] = place[inner]
        place[false[inner]] = place[inner] + np.uint64(share)
        level, share = np.concatenate((true[inner], false[inner])), share >> 1
    is_leaf = forest.is_leaf & is_used
    is_inner = ~forest.is_leaf & is_used
    is_inner[forest.roots] = True
    leaf = np.flatnonzero(is_leaf)
    tree = np.searchsorted(forest.roots, leaf, side="right")
    return is_leaf, np.flatnonzero(is_inner), leaf[np.lexsort((place[leaf], tree))]


def _ints(name: str, values: Any) -> bytes:
    return field_text(1, name) + field_bytes(8, pack_varints(values)) + field_varint(20, _INTS)


def _tensor(name: str, data_type: int, values: Any) -> bytes:
    tensor = field_varint(1, len(values)) + field_varint(2, data_type) + field_bytes(9, values.tobytes())
    return field_text(1, name) + field_bytes(5, tensor) + field_varint(20, _TENSOR)


def _value_info(name: str, width: int) -> bytes:
    shape = field_bytes(1, field_text(2, "n")) + field_bytes(1, field_varint(1, width))
    tensor = field_varint(1, _FLOAT) + field_bytes(2, shape)
    return field_text(1, name) + field_bytes(2, field_bytes(1, tensor))
