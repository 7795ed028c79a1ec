"""How a model is laid out for Triton: its backend, its configuration, its files. Pure.

| model        | backend                | file                        |
| ONNX         | onnxruntime, or python | model.onnx (+ model.py)     |
| TorchScript  | pytorch                | model.pt                    |
| model.py     | python                 | the whole folder            |
| XGBoost      | fil, or python         | xgboost.ubj, or model.ubj + model.py |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath

from glowplug.triton.model_config import (
    MAX_BATCH_SIZE,
    MAX_QUEUE_DELAY_US,
    DynamicBatching,
    Instances,
    ModelConfig,
    TensorConfig,
    VersionPolicy,
    problems,
    set_instances,
    to_message,
)
from glowplug.triton.options import BuildOptions
from glowplug.triton.pbtxt import Message, without_empty
from glowplug.triton.settings import Setting, applied, setting_of
from glowplug.triton.signature import Signature, TensorShape
from glowplug.triton.sources import Kind

# The first is the default.
BACKENDS_OF = {
    Kind.onnx: ("onnxruntime", "python"),
    Kind.torchscript: ("pytorch",),
    Kind.python: ("python",),
    Kind.xgboost: ("fil", "python"),
}
# model.py files that are written along, by what they run.
TEMPLATES = {Kind.onnx: "onnx_model.py", Kind.xgboost: "xgboost_model.py"}
# A Python model may say its inputs and outputs itself, under this name.
AUTO_COMPLETE = "auto_complete_config"


@dataclass(frozen=True)
class Layout:
    """Where the main file goes within the version's folder, and the template written as model.py, if any."""

    backend: str
    file: str
    template: str | None = None


@dataclass(frozen=True)
class Plan:
    """`message` is the config.pbtxt; `notes` are for the user; nothing may be written where there are `problems`."""

    message: Message
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def layout(kind: Kind, file: PurePath, backend: str) -> Layout | str:
    """The layout, or what is wrong with the backend that was asked for."""
    known = BACKENDS_OF[kind]
    chosen = known[0] if backend == "auto" else backend
    if chosen not in known:
        return f"--backend {backend}: {kind.value} models run on {' or '.join(known)}"
    if kind is Kind.python:
        return Layout(chosen, file.name)
    if chosen == "fil":
        return Layout(chosen, "xgboost.json" if file.suffix == ".json" else "xgboost.ubj")
    suffix = {Kind.onnx: ".onnx", Kind.torchscript: ".pt"}.get(kind) or (
        ".json" if file.suffix == ".json" else ".ubj"
    )
    return Layout(chosen, f"model{suffix}", TEMPLATES.get(kind) if chosen == "python" else None)


def plan(place: Layout, signature: Signature | None, options: BuildOptions, existing: Message | None) -> Plan:
    """The configuration of a version. `existing` is the model's config.pbtxt, where it has one.

    An existing configuration is kept, except for what the options say: it may be tuned, or edited by hand. Its
    inputs and outputs must be the new version's, as Triton has one configuration for all versions.
    """
    notes: list[str] = []
    config = _config(place, signature, options, notes)
    found = [*problems(config), *_forest_problems(place, signature)]
    if signature is not None and (options.inputs or options.outputs):
        found.append("--input, --output: this model says its inputs and outputs itself")
    fresh = without_empty(to_message(config))
    if existing is None or found:
        return Plan(fresh, tuple(notes), tuple(found))
    found = [
        f"{name} differs from that of the versions which {options.name} has already: "
        f"{_brief(fresh[name])}, not {_brief(existing.get(name))}; expected the same, or another --name"
        for name in ("backend", "input", "output")
        if name in fresh and fresh[name] != existing.get(name)
    ]
    return Plan(_merged(existing, fresh, options), (*notes, "config.pbtxt is kept"), tuple(found))


def _config(
    place: Layout, signature: Signature | None, options: BuildOptions, notes: list[str]
) -> ModelConfig:
    max_batch_size = MAX_BATCH_SIZE if options.max_batch_size is None else options.max_batch_size
    if signature is not None and not _takes_batches(signature):
        if max_batch_size and options.max_batch_size is None:
            notes.append("no batching: the first axis is not of any size in every input and output")
        elif max_batch_size:
            notes.append(f"--max-batch-size {max_batch_size} becomes 0: an input or output has no batch axis")
        max_batch_size = 0
    if signature is None:
        inputs = tuple(TensorConfig(each.name, each.datatype, each.shape) for each in options.inputs)
        outputs = tuple(TensorConfig(each.name, each.datatype, each.shape) for each in options.outputs)
    else:
        inputs = tuple(_tensor(each, max_batch_size) for each in signature.inputs)
        outputs = tuple(_tensor(each, max_batch_size) for each in signature.outputs)
    delay = MAX_QUEUE_DELAY_US if options.max_queue_delay_us is None else options.max_queue_delay_us
    is_batched = options.is_batched and max_batch_size > 0
    config = ModelConfig(
        options.name,
        place.backend,
        inputs,
        outputs,
        max_batch_size,
        DynamicBatching(delay, options.preferred_batch_sizes) if is_batched else None,
        Instances(options.instances or 1, options.kind or _default_kind(place.backend)),
        options.versions or VersionPolicy(),
        parameters=_parameters(place, signature),
    )
    return replace(config, warmup=_warmup(config, options, notes))


def _default_kind(backend: str) -> str:
    return "KIND_CPU" if backend == "python" else "KIND_GPU"


def _takes_batches(signature: Signature) -> bool:
    tensors = (*signature.inputs, *signature.outputs)
    return all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors)


def _tensor(tensor: TensorShape, max_batch_size: int) -> TensorConfig:
    dims = tensor.shape[1:] if max_batch_size else tensor.shape
    return TensorConfig(tensor.name, tensor.datatype, dims, is_flat=not dims)


def _parameters(place: Layout, signature: Signature | None) -> dict[str, str]:
    """What FIL needs to know of a forest."""
    if place.backend != "fil" or signature is None or signature.forest is None:
        return {}
    is_classifier = "true" if signature.forest.classes else "false"
    return {
        "model_type": "xgboost_json" if place.file.endswith(".json") else "xgboost_ubj",
        "output_class": is_classifier,
        "predict_proba": is_classifier,
        "storage_type": "AUTO",
    }


def _forest_problems(place: Layout, signature: Signature | None) -> list[str]:
    forest = signature.forest if signature is not None else None
    if forest is None or place.backend != "fil":
        return []
    found = []
    if forest.booster == "gblinear":
        found.append("booster gblinear: FIL runs trees only; --backend python runs it on the CPU")
    if forest.targets > 1:
        found.append(f"{forest.targets} targets: FIL answers one; --backend python runs it on the CPU")
    if forest.objective == "multi:softmax":
        found.append("objective multi:softmax: FIL answers probabilities; train with multi:softprob")
    return found


def _warmup(config: ModelConfig, options: BuildOptions, notes: list[str]) -> tuple[int, ...]:
    if not options.is_warmed or not config.inputs:
        return ()
    if any(tensor.datatype == "BYTES" or -1 in tensor.dims for tensor in config.inputs):
        notes.append("no warm-up: zeros can be made only for numbers of known size")
        return ()
    return tuple(sorted({1, config.max_batch_size or 1}))


def _merged(existing: Message, fresh: Message, options: BuildOptions) -> Message:
    old = setting_of(existing)
    said = (
        options.max_batch_size, options.max_queue_delay_us, options.instances, options.kind,
        options.versions, options.preferred_batch_sizes or None, None if options.is_batched else False,
    )  # fmt: skip
    if all(value is None for value in said):
        return existing
    delay = old.max_queue_delay_us if options.max_queue_delay_us is None else options.max_queue_delay_us
    setting = Setting(
        old.max_batch_size if options.max_batch_size is None else options.max_batch_size,
        delay if options.is_batched else None,
        options.instances or old.instances,
    )
    merged = applied(existing, setting)
    if options.preferred_batch_sizes and "dynamic_batching" in merged:
        block = merged["dynamic_batching"][0]
        if isinstance(block, dict):
            block["preferred_batch_size"] = list(options.preferred_batch_sizes)
    if options.kind:
        set_instances(merged, Instances(setting.instances, options.kind))
    if options.versions:
        merged["version_policy"] = fresh["version_policy"]
    return merged


def _brief(values: object) -> str:
    text = str(values)
    return text if len(text) <= 160 else text[:157] + "..."
