"""Does the feature view fit the model that it feeds? Pure; "" means yes, else one sentence that names what differs.

Two witnesses: the view that was saved beside the model when it was trained, which knows every feature by name, and
the predictor's metadata, which know the number of columns, and their names where the predictor is one of ours.
"""

from __future__ import annotations

from glowplug.features.online import GroupState
from glowplug.features.view import FeatureView, first_difference
from glowplug.wire.v2_grpc import ModelMetadata

DATATYPE = "FP32"


def against_trained(view: FeatureView, trained: FeatureView) -> str:
    """`trained` is the view that the model was trained on."""
    if view.schema_hash == trained.schema_hash:
        return ""
    difference = (
        first_difference(trained.feature_names, view.feature_names) or "features moved between groups"
    )
    return (
        f"feature view {view.name} is not what the model was trained on: {difference} "
        f"(schema {view.schema_hash}, the model's {trained.schema_hash})"
    )


def against_metadata(view: FeatureView, metadata: ModelMetadata) -> str:
    """The predictor must take one FP32 tensor [n, features of the view]; a width of -1 takes any."""
    expected = f"one {DATATYPE} tensor [n, {len(view.features)}] of feature view {view.name}"
    if len(metadata.inputs) != 1:
        return f"predictor {metadata.name} takes {len(metadata.inputs)} inputs, the lookup sends {expected}"
    tensor = metadata.inputs[0]
    if tensor.datatype != DATATYPE:
        return f"predictor {metadata.name} takes {tensor.datatype}, the lookup sends {expected}"
    if len(tensor.shape) != 2 or tensor.shape[1] not in (-1, len(view.features)):
        width = tensor.shape[1] if len(tensor.shape) == 2 else list(tensor.shape)
        last = view.feature_names[-1]
        return (
            f"predictor {metadata.name} takes {width} features, feature view {view.name} has "
            f"{len(view.features)} (the last is '{last}')"
        )
    difference = first_difference(metadata.columns, view.feature_names) if metadata.columns else ""
    if difference:
        trained = f"what the model of predictor {metadata.name} was trained on"
        return f"feature view {view.name} is not {trained}: {difference}"
    return ""


def against_store(view: FeatureView, states: list[GroupState]) -> str:
    """Every group must have been materialized at least once under this feature list."""
    absent = [state.group for state in states if state.until_ms is None]
    if not absent:
        return ""
    return (
        f"feature view {view.name}: group {', '.join(absent)} was never materialized under this feature list "
        f"(schema {view.schema_hash})"
    )
