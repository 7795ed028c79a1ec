"""KafkaSource → a bridge of the machine's, and its status.

Conditions as of eventing-kafka-broker control-plane/pkg/apis/sources/v1/kafka_lifecycle.go, without identities and
schedulers, which this machine does not have.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from glowplug.spec import kinds
from glowplug.spec.eventing import Destination
from glowplug.spec.kafka import EVENT_TYPE, KafkaSourceSpec, parse_kafka_source
from glowplug.spec.kafka_security import Cluster, KafkaProblem, security_of

from .. import conditions
from ..conditions import Condition
from ..metadata import Object, generation_of, is_deleting
from ..world import World
from .engine import KafkaState
from .sinks import Resolved, resolve

_SINK_PROVIDED, _DEPLOYED = "SinkProvided", "Deployed"
_CONNECTED, _HAS_OFFSETS = "ConnectionEstablished", "InitialOffsetsCommitted"
_DEPENDENTS = (_SINK_PROVIDED, _DEPLOYED, _CONNECTED, _HAS_OFFSETS)


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Tells the bridges of one KafkaSource, and brings its status up to date."""
    source = world.get(kinds.KAFKA_SOURCE, namespace, name)
    engine = world.engine
    if engine is None:
        return
    owner = f"KafkaSource {namespace}/{name}"
    if source is None or is_deleting(source):
        engine.remove_kafka_source(namespace, name)
        engine.set_addresses(owner, {})
        return
    spec = parse_kafka_source(source)
    status: Object = {
        "observedGeneration": generation_of(source),
        "ceAttributes": [{"type": EVENT_TYPE, "source": spec.source(topic)} for topic in spec.topics],
        "consumers": 0,
    }
    found, addresses = _sinks(world, spec, status)
    engine.set_addresses(owner, addresses)
    try:
        cluster = Cluster(spec.servers, security_of(spec.net, lambda each: secret(world, namespace, each)))
    except KafkaProblem as problem:
        engine.remove_kafka_source(namespace, name)
        found.append(conditions.false(_CONNECTED, "SecretNotUsable", str(problem)))
        found.append(conditions.true(_DEPLOYED))
    else:
        state = KafkaState()
        if spec.sink in addresses:
            state = engine.set_kafka_source(spec, cluster)
            status["consumers"] = spec.consumers
        else:
            # As in Knative a source without a sink reads nothing: its offsets stay where they are.
            engine.remove_kafka_source(namespace, name)
        found += source_conditions(state)
    before = (source.get("status") or {}).get("conditions")
    status["conditions"] = conditions.settle(before, found, _DEPENDENTS, now)
    world.update_status(kinds.KAFKA_SOURCE, source, status)


def _sinks(
    world: World, spec: KafkaSourceSpec, status: Object
) -> tuple[list[Condition], dict[Destination, str]]:
    sink = resolve(spec.sink, world.get)
    if not isinstance(sink, Resolved):
        return [conditions.false(_SINK_PROVIDED, "NotFound", sink.message)], {}
    status["sinkUri"] = sink.url
    addresses = {spec.sink: sink.url}
    dead_letter = spec.delivery.dead_letter
    if dead_letter is not None:
        resolved = resolve(dead_letter, world.get)
        if isinstance(resolved, Resolved):
            addresses[dead_letter] = resolved.url
    return [conditions.true(_SINK_PROVIDED)], addresses


def source_conditions(state: KafkaState) -> list[Condition]:
    """What a bridge's state says of connection and offsets."""
    reason = "KafkaNotReachable"
    if state.is_missing:
        return [conditions.false(_DEPLOYED, "KafkaNotInstalled", state.problem)]
    found = [conditions.true(_DEPLOYED)]
    for type, holds in ((_CONNECTED, state.is_connected), (_HAS_OFFSETS, state.has_offsets)):
        if holds is None:
            found.append(conditions.unknown(type, "Connecting", state.problem))
        else:
            found.append(conditions.true(type) if holds else conditions.false(type, reason, state.problem))
    return found


def secret(world: World, namespace: str, name: str) -> Mapping[str, bytes] | None:
    """The data of a Secret, decoded; None where there is none. What is no base64 is left out."""
    obj = world.get(kinds.SECRET, namespace, name)
    if obj is None:
        return None
    found: dict[str, bytes] = {}
    for key, value in (obj.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(value)
        except (binascii.Error, ValueError, TypeError):
            continue
    return found
