"""Brokers and Triggers as values: who gets which events, and what is done when they cannot be delivered.

Reading assumes that an object has been admitted, see `eventing_validation`; a field of a wrong type reads as absent.
Source: knative.dev/eventing pkg/apis/eventing/v1 and pkg/apis/duck/v1/delivery_types.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from glowplug.spec.validation import Object, annotations_of, as_int, as_list, as_object, as_text, metadata

BROKER_CLASS = "eventing.knative.dev/broker.class"
DELIVERY_ORDER = "kafka.eventing.knative.dev/delivery.order"
DEFAULT_BROKER = "default"
# ISO 8601 without years and months, which have no fixed length.
_PERIOD = re.compile(
    r"(?P<sign>[+-]?)P(?:(?P<weeks>\d+(?:\.\d+)?)W)?(?:(?P<days>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<hours>\d+(?:\.\d+)?)H)?(?:(?P<minutes>\d+(?:\.\d+)?)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)
_UNIT_S = {"weeks": 604800.0, "days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}


@dataclass(frozen=True)
class Reference:
    """An object that has an address."""

    api_version: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Destination:
    """Where events go: to `reference`, to `uri`, or to `uri` relative to the address of `reference`."""

    reference: Reference | None = None
    uri: str = ""


class Backoff(str, Enum):
    """The wait before retry n, from 1: `LINEAR` the delay n times, `EXPONENTIAL` the delay times 2 to the n."""

    LINEAR = "linear"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True)
class Delivery:
    """What is done with an event that its subscriber does not take.

    Delays and timeouts are seconds. `retry_after_max_s` bounds how far a subscriber may put a retry off by
    Retry-After; 0 and None ignore it.
    """

    retry: int = 0
    backoff: Backoff = Backoff.EXPONENTIAL
    delay_s: float = 0.0
    timeout_s: float | None = None
    retry_after_max_s: float | None = None
    dead_letter: Destination | None = None
    # "binary" or "json" (structured); empty: binary, as in Knative.
    format: str = ""


# Of a Broker that says nothing: what Knative's config-br-defaults says.
DEFAULT_DELIVERY = Delivery(retry=10, backoff=Backoff.EXPONENTIAL, delay_s=0.2)


@dataclass(frozen=True)
class Filter:
    """One expression over an event's attributes. Exactly one field is set, or none: then everything passes."""

    exact: Mapping[str, str] | None = None
    prefix: Mapping[str, str] | None = None
    suffix: Mapping[str, str] | None = None
    all: tuple[Filter, ...] = ()
    any: tuple[Filter, ...] = ()
    negated: Filter | None = None
    cesql: str = ""


@dataclass(frozen=True)
class BrokerSpec:
    """A Broker. `name` is unique in its namespace."""

    namespace: str
    name: str
    delivery: Delivery


@dataclass(frozen=True)
class TriggerSpec:
    """A Trigger: events of `broker` that pass `filter` go to `subscriber`; one by one where `is_ordered`.

    A `delivery` of its own replaces the Broker's as a whole; None: the Broker's.
    """

    namespace: str
    name: str
    broker: str
    subscriber: Destination
    filter: Filter = Filter()
    delivery: Delivery | None = None
    is_ordered: bool = False


def parse_broker(obj: Object) -> BrokerSpec:
    """An admitted Broker."""
    meta, spec = metadata(obj), as_object(obj.get("spec"))
    namespace = as_text(meta.get("namespace"))
    own = as_object(spec.get("delivery"))
    delivery = parse_delivery(own, namespace) if own else DEFAULT_DELIVERY
    return BrokerSpec(namespace, as_text(meta.get("name")), delivery)


def parse_trigger(obj: Object) -> TriggerSpec:
    """An admitted Trigger."""
    meta, spec = metadata(obj), as_object(obj.get("spec"))
    namespace = as_text(meta.get("namespace"))
    broker = as_text(spec.get("broker")) or as_text(as_object(spec.get("brokerRef")).get("name"))
    subscriber = parse_destination(as_object(spec.get("subscriber")), namespace)
    own = as_object(spec.get("delivery"))
    return TriggerSpec(
        namespace=namespace,
        name=as_text(meta.get("name")),
        broker=broker,
        subscriber=subscriber or Destination(),
        filter=parse_filters(spec),
        delivery=parse_delivery(own, namespace) if own else None,
        is_ordered=annotations_of(obj).get(DELIVERY_ORDER) == "ordered",
    )


def parse_filters(spec: Object) -> Filter:
    """A Trigger's `filters`, which win over its `filter`."""
    several = tuple(parse_filter(as_object(each)) for each in as_list(spec.get("filters")))
    if several:
        return several[0] if len(several) == 1 else Filter(all=several)
    attributes = _texts(as_object(as_object(spec.get("filter")).get("attributes")))
    # Of the old form, an empty value is passed by every value of the attribute, and by an absent one.
    wanted = {name: value for name, value in attributes.items() if value}
    return Filter(exact=wanted) if wanted else Filter()


def parse_filter(obj: Object) -> Filter:
    """One entry of `filters`."""
    inner = as_object(obj.get("not"))
    return Filter(
        exact=_texts(as_object(obj.get("exact"))) or None,
        prefix=_texts(as_object(obj.get("prefix"))) or None,
        suffix=_texts(as_object(obj.get("suffix"))) or None,
        all=tuple(parse_filter(as_object(each)) for each in as_list(obj.get("all"))),
        any=tuple(parse_filter(as_object(each)) for each in as_list(obj.get("any"))),
        negated=parse_filter(inner) if "not" in obj else None,
        cesql=as_text(obj.get("cesql")),
    )


def parse_delivery(obj: Object, namespace: str) -> Delivery:
    """A `delivery` block of an object in `namespace`."""
    policy = as_text(obj.get("backoffPolicy"))
    return Delivery(
        retry=as_int(obj.get("retry")) or 0,
        backoff=Backoff.LINEAR if policy == Backoff.LINEAR.value else Backoff.EXPONENTIAL,
        delay_s=period_s(obj.get("backoffDelay")) or 0.0,
        timeout_s=period_s(obj.get("timeout")),
        retry_after_max_s=period_s(obj.get("retryAfterMax")),
        dead_letter=parse_destination(as_object(obj.get("deadLetterSink")), namespace),
        format=as_text(obj.get("format")),
    )


def parse_destination(obj: Object, namespace: str) -> Destination | None:
    """A destination named by an object in `namespace`; None where there is none."""
    ref = as_object(obj.get("ref"))
    uri = as_text(obj.get("uri"))
    if not ref and not uri:
        return None
    reference = Reference(
        as_text(ref.get("apiVersion")),
        as_text(ref.get("kind")),
        as_text(ref.get("namespace")) or namespace,
        as_text(ref.get("name")),
    )
    return Destination(reference if ref else None, uri)


def period_s(text: object) -> float | None:
    """An ISO 8601 duration such as `PT0.2S` in seconds; None for anything else, years and months included."""
    found = _PERIOD.fullmatch(text) if isinstance(text, str) else None
    if found is None or not any(found[unit] for unit in _UNIT_S):
        return None
    seconds = sum(float(found[unit] or 0) * length for unit, length in _UNIT_S.items())
    return -seconds if found["sign"] == "-" else seconds


def _texts(obj: Object) -> dict[str, str]:
    return {key: value for key, value in obj.items() if isinstance(value, str)}
