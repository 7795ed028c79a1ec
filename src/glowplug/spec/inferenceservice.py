"""The InferenceService: KServe's defaults and rules, in Knative mode, and what this machine can't do of it.

Source: kserve pkg/apis/serving/v1beta1/inference_service_defaults.go and inference_service_validation.go. Every
problem is found at once; a field of a wrong type is the schema's finding and reads as absent here.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

from glowplug.errors import Problem
from glowplug.spec import (
    affinity,
    autoscaling_validation,
    components,
    containers,
    logger,
    names,
    pods,
    shadowing,
    storageuri,
)
from glowplug.spec.containers import ContainerRules
from glowplug.spec.revisions import annotation_problems
from glowplug.spec.validation import (
    INVALID,
    NOT_SUPPORTED,
    REQUIRED,
    Object,
    annotations_of,
    as_list,
    as_object,
    as_text,
    forbidden,
    invalid,
    invalid_value,
    metadata,
    under,
    unsupported,
)

KNATIVE_MODE = "Knative"
_OLD_KNATIVE_MODE = "Serverless"
_OTHER_MODES = ("Standard", "RawDeployment", "ModelMesh")
_AUTOSCALER_CLASS = "serving.kserve.io/autoscalerClass"
_AUTOSCALER_CLASSES = ("hpa", "external", "keda", "none")

# Frameworks that have a field of their own, the older way of writing `model` with that modelFormat.
FRAMEWORKS = (
    "sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface", "pmml", "lightgbm", "paddle",
)  # fmt: skip
_V2_FRAMEWORKS = ("triton", "onnx", "huggingface")
_V2_FORMATS = ("triton", "vLLM")
PROTOCOLS = ("v1", "v2", "grpc-v1", "grpc-v2")

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_LABEL_LENGTH = 63
_REFUSED = {
    "explainer": "the local machine runs no explainers",
    "canary": "canary is only supported in Standard deployment mode; use predictor.canaryTrafficPercent",
}


def default(obj: Object) -> Object:
    """A copy with KServe's defaults: deployment mode, `model` for a framework's field, protocol, container names."""
    obj = copy.deepcopy(obj)
    meta = obj.setdefault("metadata", {})
    if isinstance(meta, dict):
        notes = meta.get("annotations")
        if notes is None:
            notes = meta["annotations"] = {}
        if isinstance(notes, dict) and notes.get(names.DEPLOYMENT_MODE) in (None, "", _OLD_KNATIVE_MODE):
            notes[names.DEPLOYMENT_MODE] = KNATIVE_MODE
    spec = as_object(obj.get("spec"))
    if isinstance(spec.get("predictor"), dict):
        _default_predictor(spec["predictor"])
    transformer = as_list(as_object(spec.get("transformer")).get("containers"))
    if transformer and isinstance(transformer[0], dict):
        transformer[0]["name"] = names.SERVING_CONTAINER
    return obj


def _default_predictor(predictor: Object) -> None:
    written = _implementations(predictor)
    if len(written) == 1 and written[0] in FRAMEWORKS and isinstance(predictor[written[0]], dict):
        framework = written[0]
        model = predictor.pop(framework)
        if framework in _V2_FRAMEWORKS:
            model.setdefault("protocolVersion", "v2")
        predictor["model"] = {"modelFormat": {"name": framework}, **model}
    model = predictor.get("model")
    if isinstance(model, dict) and as_object(model.get("modelFormat")).get("name") in _V2_FORMATS:
        model.setdefault("protocolVersion", "v2")
    if written == ["containers"]:
        items = as_list(predictor["containers"])
        first = items[0] if items else None
        if isinstance(first, dict) and (len(items) == 1 or not first.get("name")):
            first["name"] = names.SERVING_CONTAINER


def _implementations(predictor: Object) -> list[str]:
    """What the predictor says that it is: `model`, a framework, or `containers` as KServe counts them."""
    written = [field for field in ("model", *FRAMEWORKS) if predictor.get(field) is not None]
    items = [as_object(item) for item in as_list(predictor.get("containers"))]
    own = [item for item in items if item.get("name") == names.SERVING_CONTAINER]
    # Beside a model, containers without one of that name are collocated helpers.
    return written + ["containers"] * (len(own) or (1 if items and not written else 0))


def validate(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a defaulted InferenceService; `old` is the object that it replaces."""
    spec = as_object(obj.get("spec"))
    problems = [*_name(obj, spec), *_annotations(obj, old)]
    problems += (
        forbidden(f"spec.{field}", why)
        for field, why in _REFUSED.items()
        if spec.get(field) not in (None, [])
    )
    predictor = spec.get("predictor")
    if isinstance(predictor, dict):
        problems += under("spec.predictor", _predictor(predictor))
    transformer = spec.get("transformer")
    if isinstance(transformer, dict):
        problems += under("spec.transformer", _transformer(transformer))
    return tuple(problems)


def warnings(obj: Object) -> tuple[str, ...]:
    """What the user should know about an InferenceService as it was sent, before defaulting."""
    notes = annotations_of(obj)
    found = []
    mode = notes.get(names.DEPLOYMENT_MODE)
    if not mode:
        found.append(
            f"metadata.annotations[{names.DEPLOYMENT_MODE}] is absent: taken as {KNATIVE_MODE} here, while a KServe "
            "cluster's default is Standard; write it out"
        )
    elif mode == _OLD_KNATIVE_MODE:
        found.append(f"{names.DEPLOYMENT_MODE}: {_OLD_KNATIVE_MODE} is deprecated, use {KNATIVE_MODE}")
    if notes.get(_AUTOSCALER_CLASS) in _AUTOSCALER_CLASSES:
        found.append(f"metadata.annotations[{_AUTOSCALER_CLASS}] has no effect in {KNATIVE_MODE} mode")
    spec = as_object(obj.get("spec"))
    if spec.get("tracing"):
        found.append("spec.tracing: the local machine exports no traces")
    for name in ("predictor", "transformer"):
        component = as_object(spec.get(name))
        fields = components.ignored(component)
        for part in ("model", *FRAMEWORKS):
            container = as_object(component.get(part))
            fields += [f"{part}.{field}" for field in pods.ignored_of_container(container)]
        if fields:
            listed = ", ".join(fields)
            found.append(
                f"spec.{name}: {listed}: without effect on the local machine, where pods are processes"
            )
    return tuple(found)


def _name(obj: Object, spec: Object) -> Iterator[Problem]:
    name = as_text(metadata(obj).get("name"))
    if not name:
        return
    if not _NAME.fullmatch(name):
        yield invalid(
            "metadata.name",
            name,
            "a InferenceService name must consist of lower case alphanumeric characters or '-', and must start with "
            f'alphabetical character. (e.g. "my-name" or "abc-123", regex used for validation is \'{_NAME.pattern}\')',
        )
    suffix = "-transformer" if spec.get("transformer") is not None else "-predictor"
    longest = _LABEL_LENGTH - len(suffix)
    if len(name) > longest:
        why = f"must be no more than {longest} characters, so that {name[:20]}…{suffix} is a DNS label"
        yield invalid("metadata.name", name, why)


def _annotations(obj: Object, old: Object | None) -> Iterator[Problem]:
    notes = annotations_of(obj)
    field = f"metadata.annotations[{names.DEPLOYMENT_MODE}]"
    mode = notes.get(names.DEPLOYMENT_MODE, KNATIVE_MODE)
    recorded = as_text(as_object(as_object(old).get("status")).get("deploymentMode"))
    if mode in _OTHER_MODES:
        why = (
            f"the local machine runs {KNATIVE_MODE} mode only; write {names.DEPLOYMENT_MODE}: {KNATIVE_MODE}"
        )
        yield unsupported(field, mode, (KNATIVE_MODE,), why)
    elif mode not in (KNATIVE_MODE, _OLD_KNATIVE_MODE, ""):
        yield unsupported(field, mode, (KNATIVE_MODE,))
    elif recorded and recorded not in (KNATIVE_MODE, _OLD_KNATIVE_MODE):
        why = f"update rejected: deploymentMode cannot be changed from '{recorded}' to '{mode}'"
        yield forbidden(field, why)
    scaler = notes.get(_AUTOSCALER_CLASS)
    if scaler is not None and scaler not in _AUTOSCALER_CLASSES:
        why = f"[{scaler[:80]}] is not a supported autoscaler class type"
        yield Problem(f"metadata.annotations[{_AUTOSCALER_CLASS}]", why, NOT_SUPPORTED)
    yield from annotation_problems(autoscaling_validation.problems(notes))
    yield from affinity.problems(notes)
    yield from shadowing.problems(notes)
    yield from logger.problems(notes)


def _predictor(predictor: Object) -> Iterator[Problem]:
    yield from _one_implementation(predictor)
    if predictor.get("workerSpec") is not None:
        yield forbidden("workerSpec", "the local machine is one node; it runs no multi-node models")
    if as_text(predictor.get("name")):
        yield forbidden("name", "a named predictor is a variant for Standard mode's canary")
    for part in ("model", *FRAMEWORKS):
        if isinstance(predictor.get(part), dict):
            yield from under(part, _model(predictor[part], part))
    is_custom = not any(isinstance(predictor.get(part), dict) for part in ("model", *FRAMEWORKS))
    if is_custom:
        yield from _custom_protocol(predictor)
    yield from pods.validate(
        predictor, is_kserve=True, is_complete=is_custom and bool(predictor.get("containers"))
    )
    yield from components.validate_storage_env(predictor)
    yield from components.validate(predictor)


def _one_implementation(predictor: Object) -> Iterator[Problem]:
    written = _implementations(predictor)
    choices = "model, a framework's field, or containers"
    if not written:
        yield Problem(
            "", f"Required value: exactly one of [{choices}] must be specified in PredictorSpec", REQUIRED
        )
    elif len(written) > 1:
        found = ", ".join(written)
        why = f"exactly one of [{choices}] must be specified in PredictorSpec, found: {found}"
        yield Problem("", f"Invalid value: {why}", INVALID)
    elif written == ["containers"]:
        items = [as_object(item) for item in as_list(predictor.get("containers"))]
        if len(items) > 1 and not any(item.get("name") == names.SERVING_CONTAINER for item in items):
            yield Problem(
                "containers",
                f"Required value: one container must be named {names.SERVING_CONTAINER}",
                REQUIRED,
            )


def _model(model: Object, part: str) -> Iterator[Problem]:
    if as_text(model.get("name")):
        yield forbidden("name", "the 'name' field is not allowed in standard predictor")
    if part == "model" and not as_text(as_object(model.get("modelFormat")).get("name")):
        yield Problem("modelFormat.name", "Required value", REQUIRED)
    protocol = model.get("protocolVersion")
    if isinstance(protocol, str) and protocol not in PROTOCOLS:
        yield unsupported("protocolVersion", protocol, PROTOCOLS, f"invalid protocol {protocol[:80]}")
    if isinstance(model.get("storageUri"), str):
        yield from storageuri.validate(model["storageUri"], "storageUri")
    if model.get("storage") is not None:
        yield forbidden(
            "storage", "the local machine takes no credentials from a storage secret; use storageUri"
        )
    if as_object(model.get("confidential")).get("enabled"):
        yield forbidden("confidential.enabled", "the local machine decrypts no models")
    yield from containers.validate(model, ContainerRules(needs_image=False, is_kserve=True))


def _custom_protocol(predictor: Object) -> Iterator[Problem]:
    first = as_object(next(iter(as_list(predictor.get("containers"))), None))
    for index, item in enumerate(as_list(first.get("env"))):
        env = as_object(item)
        if env.get("name") == components.PROTOCOL_ENV and env.get("value") not in ("v1", "v2"):
            why = f"invalid protocol {str(env.get('value'))[:80]}. Must be one of [v1, v2]"
            yield invalid_value(f"containers[0].env[{index}].value", why)


def _transformer(transformer: Object) -> Iterator[Problem]:
    yield from components.validate(transformer)
    if not as_list(transformer.get("containers")):
        why = "exactly one of [containers] must be specified in TransformerSpec"
        yield Problem("containers", f"Required value: {why}", REQUIRED)
        return
    yield from pods.validate(transformer, is_kserve=True)
    yield from components.validate_storage_env(transformer)
