"""Eventing's kinds as the local machine admits them: Knative's rules, and what only a cluster can do.

A destination has to be of a kind that can take events here: one that nobody can send to would hold events back for
ever.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from glowplug.errors import Problem
from glowplug.spec import jobs, kinds
from glowplug.spec.cesql import SqlProblem, compile_filter
from glowplug.spec.eventing import BROKER_CLASS
from glowplug.spec.eventing_validation import validate_broker, validate_trigger
from glowplug.spec.kafka import BROKER_CLASS as KAFKA
from glowplug.spec.kafka_validation import kafka_source_problems
from glowplug.spec.pings import ping_problems
from glowplug.spec.validation import (
    DNS_1123_SUBDOMAIN,
    Object,
    annotations_of,
    as_object,
    as_text,
    invalid,
    metadata,
    under,
    unsupported,
)

# The first is the default. The second is Knative's own, whose contract it keeps. The third keeps its events in a topic.
BROKER_CLASSES = ("glowplug", "MTChannelBasedBroker", KAFKA)
_DEPENDENCY = "knative.dev/dependency"
ADDRESSABLE = (
    kinds.KNATIVE_SERVICE,
    kinds.ROUTE,
    kinds.INFERENCE_SERVICE,
    kinds.BROKER,
    kinds.JOB_SINK,
)


def default_broker(obj: Object) -> Object:
    """A Broker that has a class."""
    obj = copy.deepcopy(obj)
    meta = obj.get("metadata")
    if isinstance(meta, dict):
        if not isinstance(meta.get("annotations"), dict):
            meta["annotations"] = {}
        meta["annotations"].setdefault(BROKER_CLASS, BROKER_CLASSES[0])
    return obj


def broker(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a Broker."""
    delivery = as_object(as_object(obj.get("spec")).get("delivery"))
    found = [*_name(obj), *validate_broker(obj, old)]
    found += under("spec.delivery.deadLetterSink", _unreachable(as_object(delivery.get("deadLetterSink"))))
    return tuple(found)


def trigger(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a Trigger, its filters in CloudEvents SQL among them."""
    spec = as_object(obj.get("spec"))
    delivery = as_object(spec.get("delivery"))
    found = [*_name(obj), *validate_trigger(obj, old, _sql_fault)]
    found += under("spec.subscriber", _unreachable(as_object(spec.get("subscriber"))))
    found += under("spec.delivery.deadLetterSink", _unreachable(as_object(delivery.get("deadLetterSink"))))
    return tuple(found)


def job_sink(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a JobSink and of the Job in it."""
    del old
    job = as_object(obj.get("spec")).get("job")
    found = list(_name(obj))
    if not isinstance(job, dict):
        found.append(Problem("spec", "expected exactly one, got neither: job", "FieldValueRequired"))
    else:
        found += under("spec.job", jobs.template_problems(job))
    return tuple(found)


def ping_source(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a PingSource."""
    del old
    sink = as_object(as_object(obj.get("spec")).get("sink"))
    return (*_name(obj), *ping_problems(obj), *under("spec.sink", _unreachable(sink)))


def kafka_source(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a KafkaSource."""
    spec = as_object(obj.get("spec"))
    dead_letter = as_object(as_object(spec.get("delivery")).get("deadLetterSink"))
    return (
        *_name(obj),
        *kafka_source_problems(obj, old),
        *under("spec.sink", _unreachable(as_object(spec.get("sink")))),
        *under("spec.delivery.deadLetterSink", _unreachable(dead_letter)),
    )


def broker_warnings(obj: Object) -> tuple[str, ...]:
    """What of a Broker has no effect here."""
    found = annotations_of(obj).get(BROKER_CLASS, BROKER_CLASSES[0])
    if found not in BROKER_CLASSES:
        known = ", ".join(BROKER_CLASSES)
        return (f"{BROKER_CLASS}: {found}: nothing acts on it here, the local machine has {known}",)
    if found != KAFKA and as_object(obj.get("spec")).get("config"):
        return ("spec.config: without effect on the local machine, whose broker has no channels",)
    return ()


def trigger_warnings(obj: Object) -> tuple[str, ...]:
    """What of a Trigger has no effect here."""
    if _DEPENDENCY in annotations_of(obj):
        return (f"{_DEPENDENCY}: without effect on the local machine, events flow at once",)
    return ()


def job_sink_warnings(obj: Object) -> tuple[str, ...]:
    """What of a JobSink's Job has no effect here."""
    return jobs.warnings(as_object(as_object(obj.get("spec")).get("job")), "spec.job.")


def _unreachable(destination: Object) -> Iterator[Problem]:
    ref = as_object(destination.get("ref"))
    api_version, kind = as_text(ref.get("apiVersion")), as_text(ref.get("kind"))
    if not api_version or not kind:
        return
    known = {(each.group, each.name) for each in ADDRESSABLE}
    if (api_version.rpartition("/")[0], kind) not in known:
        why = "the local machine sends events to these; to anything else by its uri"
        allowed = [f"{each.name} of {each.group}" for each in ADDRESSABLE]
        yield unsupported("ref.kind", f"{kind} of {api_version}", allowed, why)


def _sql_fault(expression: str) -> str | None:
    try:
        compile_filter(expression)
    except SqlProblem as problem:
        return str(problem)
    return None


def _name(obj: Object) -> Iterator[Problem]:
    name = as_text(metadata(obj).get("name"))
    if name:
        yield from (invalid("metadata.name", name, fault) for fault in DNS_1123_SUBDOMAIN.faults(name))
