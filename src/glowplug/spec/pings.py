"""PingSources: when they fire, what they send, and what is wrong with one.

Cron expressions are those of Knative (five fields, or six that begin with seconds, or a descriptor such as `@hourly`),
read by cronsim, which follows Debian's cron through changes of daylight saving time.
Source: knative.dev/eventing pkg/apis/sources/v1/ping_{validation,types}.go, pkg/adapter/mtping/runner.go.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone, tzinfo
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from glowplug.errors import Problem
from glowplug.spec.eventing import Destination, parse_destination
from glowplug.spec.eventing_validation import destination_problems
from glowplug.spec.validation import (
    INVALID,
    Object,
    as_object,
    as_text,
    invalid_value,
    metadata,
    missing,
    under,
)

EVENT_TYPE = "dev.knative.sources.ping"
DEFAULT_SCHEDULE = "* * * * *"
_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_JSON = "application/json"
# What a header may hold as it is; the rest is percent-encoded, as the HTTP binding of CloudEvents says.
_SAFE = " !#$&'()*+,/:;=?@[]~"


@dataclass(frozen=True)
class PingSpec:
    """A PingSource. `cron` has five or six fields, `zone` is the one that they are meant in."""

    namespace: str
    name: str
    cron: str
    zone: tzinfo
    sink: Destination
    content_type: str = ""
    data: bytes = b""
    extensions: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The `source` of its events."""
        return f"/apis/v1/namespaces/{self.namespace}/pingsources/{self.name}"

    def after(self, moment_s: float) -> float | None:
        """The first time to fire later than `moment_s`, seconds since the epoch; None if there is none."""
        # Schedules whose zone is none of the computer's business may still cross its changes of time.
        start = datetime.fromtimestamp(int(moment_s), self.zone)
        following = next(CronSim(self.cron, start), None)
        return None if following is None else following.timestamp()

    def event(self, id: str, now: float) -> tuple[dict[str, str], bytes]:
        """Headers and body of one event, in binary mode."""
        moment = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds")
        attributes = {
            "specversion": "1.0",
            "type": EVENT_TYPE,
            "source": self.source,
            "id": id,
            "time": moment.replace("+00:00", "Z"),
            **self.extensions,
        }
        headers = {f"ce-{name}": quote(value, safe=_SAFE) for name, value in attributes.items()}
        if self.data:
            headers["content-type"] = self.content_type or "text/plain"
        return headers, self.data


def parse_ping(obj: Object) -> PingSpec:
    """An admitted PingSource."""
    meta, spec = metadata(obj), as_object(obj.get("spec"))
    namespace = as_text(meta.get("namespace"))
    encoded = as_text(spec.get("dataBase64"))
    overrides = as_object(as_object(spec.get("ceOverrides")).get("extensions"))
    return PingSpec(
        namespace=namespace,
        name=as_text(meta.get("name")),
        cron=_cron(as_text(spec.get("schedule"))),
        zone=_zone(as_text(spec.get("timezone"))),
        sink=parse_destination(as_object(spec.get("sink")), namespace) or Destination(),
        content_type=as_text(spec.get("contentType")),
        data=base64.b64decode(encoded) if encoded else as_text(spec.get("data")).encode(),
        extensions={key: value for key, value in overrides.items() if isinstance(value, str)},
    )


def default_ping(obj: Object) -> Object:
    """A PingSource with a schedule: every minute, where it names none."""
    obj = copy.deepcopy(obj)
    if isinstance(obj.get("spec"), dict) and not obj["spec"].get("schedule"):
        obj["spec"]["schedule"] = DEFAULT_SCHEDULE
    return obj


def ping_problems(obj: Object) -> Iterator[Problem]:
    """Every problem of a PingSource."""
    spec = as_object(obj.get("spec"))
    yield from under("spec", _schedule(spec))
    yield from under("spec", _data(spec))
    if not as_object(spec.get("sink")):
        yield missing("spec.sink")
    else:
        yield from under("spec.sink", destination_problems(as_object(spec["sink"])))


def _schedule(spec: Object) -> Iterator[Problem]:
    text = as_text(spec.get("schedule")) or DEFAULT_SCHEDULE
    if "@every" in text:
        yield invalid_value("schedule", "unsupported descriptor @every")
        return
    try:
        zone = _zone(as_text(spec.get("timezone")))
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        yield invalid_value("timezone", spec.get("timezone"), f"no such time zone: {error}")
        zone = timezone.utc
    try:
        next(CronSim(_cron(text), datetime.now(zone)))
    except CronSimError as error:
        why = f"{error}; expected a cron expression of 5 fields, or 6 that begin with seconds"
        yield invalid_value("schedule", text, why)
    except StopIteration:
        yield invalid_value("schedule", text, "it never fires")


def _data(spec: Object) -> Iterator[Problem]:
    data, encoded = as_text(spec.get("data")), as_text(spec.get("dataBase64"))
    if data and encoded:
        yield Problem("", "expected exactly one, got both: data, dataBase64", INVALID)
        return
    name, content = "data", data.encode()
    if encoded:
        name = "dataBase64"
        try:
            content = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            yield invalid_value(name, encoded, str(error))
            return
    if not content or spec.get("contentType") != _JSON:
        return
    try:
        is_object = isinstance(json.loads(content), dict)
    except ValueError as error:
        yield invalid_value(name, content.decode(errors="replace"), f"not JSON: {error}")
        return
    if not is_object:
        yield invalid_value(name, content.decode(errors="replace"), "expected a JSON object")


def _cron(text: str) -> str:
    text = text.strip() or DEFAULT_SCHEDULE
    return _DESCRIPTORS.get(text, text)


def _zone(name: str) -> tzinfo:
    # A cluster's sources run in UTC. ZoneInfo takes no path out of its folders, and says ValueError then.
    return ZoneInfo(name) if name else timezone.utc
