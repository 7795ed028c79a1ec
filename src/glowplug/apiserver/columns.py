"""The columns that `kubectl get` shows for each kind.

Those of custom resources are the printer columns of KServe's and Knative's CRDs, as JSON paths; those of the
built-in kinds are computed as the API server's own printers do (`columns_built_in.py`, `columns_pods.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from glowplug.apiserver.columns_paths import json_path
from glowplug.apiserver.durations import age
from glowplug.spec.times import parse_time

Object = dict[str, Any]
Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """A column and how its cell is computed; `priority` above 0 shows it only with `-o wide`."""

    name: str
    type: str
    cell: Callable[[Object, datetime], Cell]
    priority: int = 0
    format: str = ""
    description: str = ""

    def definition(self) -> Object:
        """The column as a Table's `columnDefinitions` has it."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


def _name(obj: Object, now: datetime) -> Cell:
    return str(obj.get("metadata", {}).get("name", ""))


def _age(obj: Object, now: datetime) -> Cell:
    return age(obj.get("metadata", {}).get("creationTimestamp"), now)


NAME = Column("Name", "string", _name, format="name", description="The name, unique within its namespace.")
AGE = Column("Age", "string", _age, description="The time since the object was created.")


def printed(name: str, path: str, kind: str = "string") -> Column:
    """A column from a JSON path, as a CRD declares it; `kind` is string, integer, boolean or date."""
    find = json_path(path)
    show = _SHOWN[kind]
    return Column(
        name,
        kind,
        lambda obj, now: show(find(obj), now),
        description=f"What is at {path}.",
    )


def _string(value: Any, now: datetime) -> Cell:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _integer(value: Any, now: datetime) -> Cell:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number else None


def _boolean(value: Any, now: datetime) -> Cell:
    return value if isinstance(value, bool) else None


def _date(value: Any, now: datetime) -> Cell:
    return None if parse_time(value) is None else age(value, now)


_SHOWN: dict[str, Callable[[Any, datetime], Cell]] = {
    "string": _string,
    "integer": _integer,
    "boolean": _boolean,
    "date": _date,
}


_CREATED = printed("Age", ".metadata.creationTimestamp", "date")
_READY = printed("Ready", ".status.conditions[?(@.type=='Ready')].status")
_REASON = printed("Reason", ".status.conditions[?(@.type=='Ready')].reason")
_URL = printed("URL", ".status.url")
_ADDRESS = printed("URL", ".status.address.url")
_LATEST_CREATED = printed("LatestCreated", ".status.latestCreatedRevisionName")
_LATEST_READY = printed("LatestReady", ".status.latestReadyRevisionName")

_PREVIOUS = ".status.components.predictor.traffic[?(@.tag=='prev')]"
_LATEST = ".status.components.predictor.traffic[?(@.latestRevision==true)]"
_RUNTIME = (
    printed("Disabled", ".spec.disabled", "boolean"),
    printed("ModelType", ".spec.supportedModelFormats[*].name"),
    printed("Containers", ".spec.containers[*].name"),
    _CREATED,
)

# After the name, by (group, kind).
CUSTOM_COLUMNS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("serving.kserve.io", "InferenceService"): (
        _URL,
        _READY,
        printed("Prev", f"{_PREVIOUS}.percent", "integer"),
        printed("Latest", f"{_LATEST}.percent", "integer"),
        printed("PrevRolledoutRevision", f"{_PREVIOUS}.revisionName"),
        printed("LatestReadyRevision", f"{_LATEST}.revisionName"),
        _CREATED,
    ),
    ("serving.kserve.io", "InferenceGraph"): (_URL, _READY, _CREATED),
    ("serving.kserve.io", "ServingRuntime"): _RUNTIME,
    ("serving.kserve.io", "ClusterServingRuntime"): _RUNTIME,
    ("serving.knative.dev", "Service"): (_URL, _LATEST_CREATED, _LATEST_READY, _READY, _REASON),
    ("serving.knative.dev", "Configuration"): (_LATEST_CREATED, _LATEST_READY, _READY, _REASON),
    ("serving.knative.dev", "Revision"): (
        printed("Config Name", r".metadata.labels['serving\.knative\.dev/configuration']"),
        printed("Generation", r".metadata.labels['serving\.knative\.dev/configurationGeneration']"),
        _READY,
        _REASON,
        printed("Actual Replicas", ".status.actualReplicas", "integer"),
        printed("Desired Replicas", ".status.desiredReplicas", "integer"),
    ),
    ("serving.knative.dev", "Route"): (_URL, _READY, _REASON),
    ("autoscaling.internal.knative.dev", "PodAutoscaler"): (
        printed("DesiredScale", ".status.desiredScale", "integer"),
        printed("ActualScale", ".status.actualScale", "integer"),
        _READY,
        _REASON,
    ),
    ("eventing.knative.dev", "Broker"): (_ADDRESS, _CREATED, _READY, _REASON),
    ("eventing.knative.dev", "Trigger"): (
        printed("Broker", ".spec.broker"),
        printed("Subscriber_URI", ".status.subscriberUri"),
        _CREATED,
        _READY,
        _REASON,
    ),
    ("sources.knative.dev", "KafkaSource"): (
        printed("Topics", ".spec.topics"),
        printed("BootstrapServers", ".spec.bootstrapServers"),
        _READY,
        _REASON,
        _CREATED,
    ),
    ("sources.knative.dev", "PingSource"): (
        printed("Sink", ".status.sinkUri"),
        printed("Schedule", ".spec.schedule"),
        _CREATED,
        _READY,
        _REASON,
    ),
    ("sinks.knative.dev", "JobSink"): (_ADDRESS, _CREATED, _READY, _REASON),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): (
        Column("Created At", "date", lambda obj, now: obj.get("metadata", {}).get("creationTimestamp")),
    ),
}
