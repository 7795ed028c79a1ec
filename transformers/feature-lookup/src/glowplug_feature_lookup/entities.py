"""A request's tensors → the entities' values. Pure; every problem of a request is told at once."""

from __future__ import annotations

from glowplug.errors import InferenceError
from glowplug.features.view import Entity, EntityType, FeatureView
from glowplug.serving import TensorSpec
from glowplug.wire import InferRequest, Tensor

_INTEGERS = frozenset(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
_DATATYPES = {EntityType.STRING: "BYTES", EntityType.INT64: "INT64"}


def input_specs(view: FeatureView) -> tuple[TensorSpec, ...]:
    """The inputs that the metadata declares: one tensor [n] for each entity."""
    return tuple(TensorSpec(entity.name, _DATATYPES[entity.type], (-1,)) for entity in view.entities)


def entity_values(view: FeatureView, request: InferRequest) -> dict[str, list[str]]:
    """n texts for each entity, from a tensor [n] or [n, 1] of its name.

    A string entity is BYTES (UTF-8); an int64 entity any integer type, or BYTES of decimal digits. Raises
    `InferenceError` 400 that lists what is missing, unknown, of another type, or of another length.
    """
    tensors = {tensor.name: tensor for tensor in request.inputs}
    problems = [f"input '{entity.name}' is missing" for entity in view.entities if entity.name not in tensors]
    known = {entity.name for entity in view.entities}
    problems += [f"input '{name[:80]}' is no entity of the view" for name in tensors if name not in known]
    values: dict[str, list[str]] = {}
    for entity in view.entities:
        if entity.name in tensors:
            try:
                values[entity.name] = _column(entity, tensors[entity.name])
            except InferenceError as error:
                problems.append(error.message)
    lengths = {len(column) for column in values.values()}
    if len(lengths) > 1:
        each = ", ".join(f"{name} {len(column)}" for name, column in values.items())
        problems.append(f"the inputs have different numbers of rows: {each}")
    if problems:
        expected = ", ".join(f"{entity.name} ({entity.type.value})" for entity in view.entities)
        raise InferenceError(
            f"{'; '.join(problems)}; feature view {view.name} expects {expected}, each of shape [n] or [n, 1]"
        )
    return values


def _column(entity: Entity, tensor: Tensor) -> list[str]:
    if not (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)):
        raise InferenceError(f"input '{entity.name}' has shape {list(tensor.shape)}")
    if entity.type is EntityType.STRING:
        if tensor.datatype != "BYTES":
            raise InferenceError(f"input '{entity.name}' is {tensor.datatype}, must be BYTES")
        return tensor.as_strings()
    if tensor.datatype in _INTEGERS:
        return [str(value) for value in tensor.as_numpy().reshape(-1).tolist()]
    if tensor.datatype == "BYTES":
        return [_integer(entity, value) for value in tensor.as_strings()]
    raise InferenceError(f"input '{entity.name}' is {tensor.datatype}, must be INT64")


def _integer(entity: Entity, text: str) -> str:
    """The canonical form, so that `007` and `7` are the same row."""
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 19):
        raise InferenceError(f"input '{entity.name}' has a value that is not an integer")
    return str(int(text))
