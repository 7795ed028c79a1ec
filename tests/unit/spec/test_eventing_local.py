"""Eventing's kinds as this machine admits them."""

from __future__ import annotations

from typing import Any

from glowplug.spec import eventing_local
from glowplug.spec.eventing import BROKER_CLASS
from glowplug.spec.validation import Object

SINK = {"ref": {"apiVersion": "sinks.knative.dev/v1alpha1", "kind": "JobSink", "name": "s"}}


def trigger(subscriber: Object = SINK, **spec: Any) -> Object:
    return {"metadata": {"name": "t"}, "spec": {"broker": "default", "subscriber": subscriber, **spec}}


def fields(found: Any) -> list[str]:
    return [each.field for each in found]


def test_filters_in_sql_are_parsed_and_the_position_is_told() -> None:
    assert not eventing_local.trigger(trigger(filters=[{"cesql": "type LIKE 'dev.%'"}]))
    (problem,) = eventing_local.trigger(trigger(filters=[{"cesql": "type = = 'a'"}]))
    assert problem.field == "spec.filters[0].cesql" and "at character 8" in problem.message


def test_only_what_can_take_events_here_may_be_a_destination() -> None:
    service = {"ref": {"apiVersion": "v1", "kind": "Service", "name": "web"}}
    (problem,) = eventing_local.trigger(trigger(service))
    assert problem.field == "spec.subscriber.ref.kind" and "Service of v1" in problem.message
    dead = {"delivery": {"deadLetterSink": service}}
    assert fields(eventing_local.trigger(trigger(**dead))) == ["spec.delivery.deadLetterSink.ref.kind"]
    found = eventing_local.broker({"metadata": {"name": "b"}, "spec": dead})
    assert fields(found) == ["spec.delivery.deadLetterSink.ref.kind"]
    for version in ("v1", "v1beta9"):
        ref = {"apiVersion": f"serving.knative.dev/{version}", "kind": "Service", "name": "web"}
        assert not eventing_local.trigger(trigger({"ref": ref}))


def test_a_broker_gets_our_class_and_another_one_is_told() -> None:
    made = eventing_local.default_broker({"metadata": {"name": "b"}, "spec": {}})
    assert made["metadata"]["annotations"] == {BROKER_CLASS: "glowplug"}
    assert not eventing_local.broker_warnings(made)
    for name, count in (("MTChannelBasedBroker", 0), ("Kafka", 0), ("RabbitMQBroker", 1)):
        other = eventing_local.default_broker(
            {"metadata": {"name": "b", "annotations": {BROKER_CLASS: name}}}
        )
        assert other["metadata"]["annotations"][BROKER_CLASS] == name
        assert len(eventing_local.broker_warnings(other)) == count


def test_the_job_of_a_job_sink_is_checked_where_it_stands() -> None:
    assert fields(eventing_local.job_sink({"metadata": {"name": "s"}, "spec": {}})) == ["spec"]
    pod = {"restartPolicy": "Always", "containers": [{"name": "a"}]}
    found = eventing_local.job_sink(
        {"metadata": {"name": "s"}, "spec": {"job": {"spec": {"template": {"spec": pod}}}}}
    )
    assert fields(found) == ["spec.job.spec.template.spec.restartPolicy"]
