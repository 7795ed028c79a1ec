"""What a written object goes through before it is stored: schema, defaults, the rules of its kind.

Every problem is reported at once, whatever stage finds it. A field that the machine can't honour is never dropped in
silence: it is an error where leaving it out would serve something else, and a warning where it only places or sizes
a pod.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from glowplug.apiserver import webhook_configurations
from glowplug.apiserver.admission_decode import decode
from glowplug.apiserver.schema import Schemas
from glowplug.apiserver.schema_check import Findings, Unknown, check
from glowplug.errors import BadRequest, Invalid, Problem
from glowplug.spec import (
    core,
    eventing_local,
    inferenceservice,
    jobs,
    kafka,
    kinds,
    knativeservice,
    pairs,
    pings,
    servingruntime,
)
from glowplug.spec.autoscaling_validation import NOT_BY_CLUSTER
from glowplug.spec.kinds import Kind
from glowplug.spec.validation import annotations_of, as_object, as_text, metadata, metadata_problems, required

Object = dict[str, Any]

__all__ = ["Admission", "Admitted", "Refused", "decode"]


class Refused(Invalid):
    """An object that is invalid; its Status names kind and object, from which kubectl makes its message."""

    def __init__(self, kind: Kind, name: str, message: str, causes: Sequence[Problem]) -> None:
        super().__init__(message, causes=causes)
        self._subject = {"kind": kind.name, **({"name": name} if name else {})}

    def status(self, details: dict[str, Any] | None = None) -> dict[str, Any]:
        """The Status; the object's own name also where the address has none, as on a create."""
        return super().status({**(details or {}), **self._subject})


@dataclass(frozen=True)
class Admitted:
    """The object to store: pruned, defaulted and valid; `warnings` go to the client as Warning headers."""

    object: Object
    warnings: tuple[str, ...] = ()


def _as_written(obj: Object) -> Object:
    return obj


def _no_warnings(obj: Object) -> tuple[str, ...]:
    del obj
    return ()


def _default_inference_service(obj: Object) -> Object:
    """With the ids of a locked pair too: on a cluster the rollout controller's webhook writes them, here they must not
    hang on whether it runs."""
    obj = inferenceservice.default(obj)
    return pairs.stamp(obj) or obj


def _inference_service_problems(obj: Object, old: Object | None) -> tuple[Problem, ...]:
    return (*inferenceservice.validate(obj, old), *pairs.problems(annotations_of(obj)))


@dataclass(frozen=True)
class _Rules:
    validate: Callable[[Object, Object | None], tuple[Problem, ...]]
    default: Callable[[Object], Object] = _as_written
    warnings: Callable[[Object], tuple[str, ...]] = _no_warnings


_RULES = {
    kinds.NAMESPACE: _Rules(core.validate_namespace, core.default_namespace),
    kinds.POD: _Rules(core.validate_pod),
    kinds.CONFIG_MAP: _Rules(core.validate_config_map),
    kinds.SECRET: _Rules(core.validate_secret, core.default_secret),
    kinds.INFERENCE_SERVICE: _Rules(
        _inference_service_problems, _default_inference_service, inferenceservice.warnings
    ),
    kinds.SERVING_RUNTIME: _Rules(servingruntime.validate, warnings=servingruntime.warnings),
    kinds.CLUSTER_SERVING_RUNTIME: _Rules(servingruntime.validate, warnings=servingruntime.warnings),
    kinds.KNATIVE_SERVICE: _Rules(
        knativeservice.validate_service, knativeservice.default_service, knativeservice.warnings
    ),
    kinds.CONFIGURATION: _Rules(
        knativeservice.validate_configuration, knativeservice.default_configuration, knativeservice.warnings
    ),
    kinds.REVISION: _Rules(
        knativeservice.validate_revision, knativeservice.default_revision, knativeservice.warnings
    ),
    kinds.ROUTE: _Rules(knativeservice.validate_route, knativeservice.default_route),
    kinds.JOB: _Rules(jobs.validate_job, jobs.default_job, jobs.warnings),
    kinds.BROKER: _Rules(
        eventing_local.broker, eventing_local.default_broker, eventing_local.broker_warnings
    ),
    kinds.TRIGGER: _Rules(eventing_local.trigger, warnings=eventing_local.trigger_warnings),
    kinds.JOB_SINK: _Rules(eventing_local.job_sink, warnings=eventing_local.job_sink_warnings),
    kinds.PING_SOURCE: _Rules(eventing_local.ping_source, pings.default_ping),
    kinds.KAFKA_SOURCE: _Rules(eventing_local.kafka_source, kafka.default_kafka_source),
    kinds.MUTATING_WEBHOOK_CONFIGURATION: _Rules(
        webhook_configurations.validate, webhook_configurations.default_mutating
    ),
    kinds.VALIDATING_WEBHOOK_CONFIGURATION: _Rules(
        webhook_configurations.validate, webhook_configurations.default_validating
    ),
}
_OTHER = _Rules(core.validate_named)


class Admission:
    """Admits objects against the schemas of what is installed."""

    def __init__(self, schemas: Schemas, allows_zero: Callable[[], bool] = lambda: False) -> None:
        """`allows_zero`: whether the cluster's settings allow a revision to start with no pods."""
        self._schemas = schemas
        self._allows_zero = allows_zero

    def admit(
        self,
        kind: Kind,
        obj: Object,
        old: Object | None,
        *,
        validation: str = "Strict",
        duplicates: Sequence[str] = (),
        subresource: str = "",
    ) -> Admitted:
        """The object to store in place of `old` (None when it is created).

        `validation` is the request's `fieldValidation`: unknown fields and `duplicates` are an error (`Strict`), a
        warning (`Warn`), or dropped (`Ignore`). Raises BadRequest for those, and Invalid, with all causes, for
        everything else.
        """
        found = check(self._schemas, kind, obj)
        strict = _strict_faults(found.unknown, duplicates)
        if subresource:
            # Metadata and spec are not written through a subresource: only shapes are checked.
            defaulted, problems = found.object, found.problems
        else:
            rules = _RULES.get(kind, _OTHER)
            defaulted = rules.default(found.object)
            problems = self._problems(kind, rules, found, defaulted, old)
        if strict and validation == "Strict":
            raise _strict_error(strict, problems)
        if problems:
            raise _invalid(kind, defaulted, problems)
        warnings = [] if validation == "Ignore" else [problem.message for problem in strict]
        if not subresource:
            warnings += _warnings(kind, found.object)
        return Admitted(defaulted, tuple(warnings))

    def prepare(
        self,
        kind: Kind,
        obj: Object,
        *,
        validation: str = "Strict",
        duplicates: Sequence[str] = (),
        subresource: str = "",
    ) -> Admitted:
        """The object as mutating webhooks see it: pruned and defaulted, and not yet valid, which they may change.

        The arguments are those of `admit`, which has to follow. Raises BadRequest, and Invalid for what has wrong
        types: nobody could read it.
        """
        found = check(self._schemas, kind, obj)
        strict = _strict_faults(found.unknown, duplicates)
        if strict and validation == "Strict":
            raise _strict_error(strict, ())
        if found.problems:
            raise _invalid(kind, found.object, found.problems)
        warnings = [] if validation == "Ignore" else [problem.message for problem in strict]
        if subresource:
            return Admitted(found.object, tuple(warnings))
        warnings += _warnings(kind, found.object)
        return Admitted(_RULES.get(kind, _OTHER).default(found.object), tuple(warnings))

    def _problems(
        self, kind: Kind, rules: _Rules, found: Findings, defaulted: Object, old: Object | None
    ) -> tuple[Problem, ...]:
        if as_object(metadata(as_object(old))).get("deletionTimestamp"):
            # Only finalizers are left to be taken off it; a rule must not stop that.
            return found.problems
        meta = metadata(defaulted)
        problems = [*found.problems, *check(self._schemas, kind, defaulted).missing]
        if not as_text(meta.get("name")) and not as_text(meta.get("generateName")):
            problems.append(required("metadata.name", "name or generateName is required"))
        problems += metadata_problems(meta)
        problems += rules.validate(defaulted, old)
        if any(NOT_BY_CLUSTER in problem.field for problem in problems) and self._allows_zero():
            problems = [problem for problem in problems if NOT_BY_CLUSTER not in problem.field]
        return _distinct(problems)


def _distinct(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Without repetitions: a field whose type is wrong or which is missing is told once."""
    told: dict[tuple[str, str], Problem] = {}
    plain = {problem.field for problem in problems if problem.reason == "FieldValueTypeInvalid"}
    for problem in problems:
        if problem.field in plain and problem.reason != "FieldValueTypeInvalid":
            continue
        # "Required value" and "missing field(s)" of one field are one finding.
        key = problem.reason if problem.reason == "FieldValueRequired" else problem.message
        told.setdefault((problem.field, key), problem)
    return tuple(told.values())


def _strict_faults(unknown: Sequence[Unknown], duplicates: Sequence[str]) -> tuple[Problem, ...]:
    faults = [Problem(path, f'duplicate field "{path}"', "FieldValueDuplicate") for path in duplicates]
    for fault in unknown:
        hint = f' (did you mean "{fault.hint}"?)' if fault.hint else ""
        faults.append(Problem(fault.path, f'unknown field "{fault.path}"{hint}', "FieldValueInvalid"))
    return tuple(faults)


def _strict_error(faults: Sequence[Problem], problems: Sequence[Problem]) -> BadRequest:
    message = f"strict decoding error: {', '.join(fault.message for fault in faults)}"
    if problems:
        message += f"; it is also invalid: {_listed(problems)}"
    return BadRequest(message, causes=(*faults, *problems))


def _invalid(kind: Kind, obj: Object, problems: Sequence[Problem]) -> Invalid:
    name = as_text(metadata(obj).get("name")) or as_text(metadata(obj).get("generateName"))
    listed = _listed(problems)
    if len(problems) > 1:
        listed = f"[{listed}]"
    resource = f"{kind.name}.{kind.group}" if kind.group else kind.name
    return Refused(kind, name, f'{resource} "{name}" is invalid: {listed}', problems)


def _listed(problems: Sequence[Problem]) -> str:
    return ", ".join(f"{problem.field}: {problem.message}" for problem in problems)


def _warnings(kind: Kind, written: Object) -> list[str]:
    warnings = list(_RULES.get(kind, _OTHER).warnings(written))
    if kind in kinds.UNMANAGED:
        warnings.append(f"the local machine stores a {kind.name}, but nothing acts on it")
    return warnings
