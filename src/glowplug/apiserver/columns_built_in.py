"""What `kubectl get` shows of the other built-in kinds: events, configuration, namespaces, jobs, accounts, leases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from glowplug.apiserver.columns import AGE, NAME, Cell, Column
from glowplug.apiserver.columns_pods import POD_COLUMNS
from glowplug.apiserver.durations import age, human_duration
from glowplug.spec.times import parse_time

Object = dict[str, Any]

_NONE = "<none>"


def _last_seen(event: Object, now: datetime) -> Cell:
    series = event.get("series") or {}
    if series:
        return age(series.get("lastObservedTime"), now)
    return age(event.get("lastTimestamp") or _began(event), now)


def _began(event: Object) -> Any:
    return event.get("firstTimestamp") or event.get("eventTime")


def _event_count(event: Object, now: datetime) -> Cell:
    return int((event.get("series") or event).get("count") or 1)


def _event_object(event: Object, now: datetime) -> Cell:
    target = event.get("involvedObject") or {}
    kind = str(target.get("kind", "")).lower()
    return f"{kind}/{target['name']}" if target.get("name") else kind


def _event_source(event: Object, now: datetime) -> Cell:
    source = event.get("source") or {}
    parts = [
        source.get("component") or event.get("reportingComponent"),
        source.get("host") or event.get("reportingInstance"),
    ]
    return ", ".join(str(part) for part in parts if part)


EVENT_COLUMNS = (
    Column("Last Seen", "string", _last_seen, description="When this was last seen."),
    Column("Type", "string", lambda event, now: event.get("type", ""), description="Normal or Warning."),
    Column("Reason", "string", lambda event, now: event.get("reason", ""), description="Why, in one word."),
    Column("Object", "string", _event_object, description="What this is about."),
    Column(
        "Subobject",
        "string",
        lambda event, now: (event.get("involvedObject") or {}).get("fieldPath", ""),
        priority=1,
        description="Which part of it.",
    ),
    Column("Source", "string", _event_source, priority=1, description="Who says so."),
    Column(
        "Message",
        "string",
        lambda event, now: str(event.get("message") or "").strip(),
        description="What happened.",
    ),
    Column(
        "First Seen",
        "string",
        lambda event, now: age(_began(event), now),
        priority=1,
        description="When this was first seen.",
    ),
    Column("Count", "string", _event_count, priority=1, description="How often this was seen."),
    Column("Name", "string", NAME.cell, priority=1, format="name", description="The name of the event."),
)


def _data_count(obj: Object, now: datetime) -> Cell:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


_DATA = Column("Data", "string", _data_count, description="The number of keys.")

CONFIG_MAP_COLUMNS = (NAME, _DATA, AGE)
SECRET_COLUMNS = (
    NAME,
    Column("Type", "string", lambda secret, now: secret.get("type", ""), description="What it is for."),
    _DATA,
    AGE,
)
NAMESPACE_COLUMNS = (
    NAME,
    Column(
        "Status",
        "string",
        lambda space, now: (space.get("status") or {}).get("phase", ""),
        description="Active or Terminating.",
    ),
    AGE,
)
SERVICE_ACCOUNT_COLUMNS = (
    NAME,
    Column(
        "Secrets",
        "string",
        lambda account, now: len(account.get("secrets") or []),
        description="The number of secrets.",
    ),
    AGE,
)
LEASE_COLUMNS = (
    NAME,
    Column(
        "Holder",
        "string",
        lambda lease, now: (lease.get("spec") or {}).get("holderIdentity") or "",
        description="Who holds the lease.",
    ),
    AGE,
)


WEBHOOK_COLUMNS = (
    NAME,
    Column(
        "Webhooks",
        "integer",
        lambda configuration, now: len(configuration.get("webhooks") or []),
        description="The number of webhooks in it.",
    ),
    AGE,
)


def _job_status(job: Object, now: datetime) -> Cell:
    held = {
        condition.get("type")
        for condition in (job.get("status") or {}).get("conditions") or []
        if condition.get("status") == "True"
    }
    for name in ("Complete", "Failed"):
        if name in held:
            return name
    if job.get("metadata", {}).get("deletionTimestamp"):
        return "Terminating"
    for name in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if name in held:
            return name
    return "Running"


def _completions(job: Object, now: datetime) -> Cell:
    spec, done = job.get("spec") or {}, (job.get("status") or {}).get("succeeded") or 0
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallel = spec.get("parallelism") or 0
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _job_duration(job: Object, now: datetime) -> Cell:
    status = job.get("status") or {}
    began = parse_time(status.get("startTime"))
    if began is None:
        return ""
    ended = parse_time(status.get("completionTime")) or now
    return human_duration((ended - began).total_seconds())


def _pod_template(job: Object, key: str) -> Cell:
    template = ((job.get("spec") or {}).get("template") or {}).get("spec") or {}
    return ",".join(str(container.get(key, "")) for container in template.get("containers") or [])


def _job_selector(job: Object, now: datetime) -> Cell:
    labels = ((job.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or _NONE


JOB_COLUMNS = (
    NAME,
    Column("Status", "string", _job_status, description="How the job is."),
    Column("Completions", "string", _completions, description="Pods that succeeded of those wanted."),
    Column("Duration", "string", _job_duration, description="How long it took, or takes so far."),
    AGE,
    Column(
        "Containers",
        "string",
        lambda job, now: _pod_template(job, "name"),
        priority=1,
        description="Names of its containers.",
    ),
    Column(
        "Images",
        "string",
        lambda job, now: _pod_template(job, "image"),
        priority=1,
        description="Their images.",
    ),
    Column("Selector", "string", _job_selector, priority=1, description="Labels of its pods."),
)

# By (group, kind), all columns.
BUILT_IN_COLUMNS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "Pod"): POD_COLUMNS,
    ("", "Event"): EVENT_COLUMNS,
    ("", "ConfigMap"): CONFIG_MAP_COLUMNS,
    ("", "Secret"): SECRET_COLUMNS,
    ("", "Namespace"): NAMESPACE_COLUMNS,
    ("", "ServiceAccount"): SERVICE_ACCOUNT_COLUMNS,
    ("batch", "Job"): JOB_COLUMNS,
    ("coordination.k8s.io", "Lease"): LEASE_COLUMNS,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): WEBHOOK_COLUMNS,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): WEBHOOK_COLUMNS,
}
