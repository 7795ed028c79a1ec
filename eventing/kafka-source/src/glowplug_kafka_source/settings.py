"""What the environment says, as values. All that is wrong is said at once."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from glowplug.errors import ConfigError
from glowplug.spec.eventing import Delivery, parse_delivery, period_s
from glowplug.spec.eventing_validation import delivery_problems
from glowplug.spec.kafka import DEFAULT_DELIVERY, EARLIEST, LATEST, ORDERED, UNORDERED, KeyType
from glowplug.spec.kafka_security import (
    PROTOCOLS,
    Cluster,
    KafkaProblem,
    Security,
    checked,
    security_of_secret,
)

_HINT = "eventing/kafka-source/README.md lists every variable"


@dataclass(frozen=True)
class Settings:
    """The program's configuration."""

    cluster: Cluster
    topics: tuple[str, ...]
    group: str
    sink: str
    source: str
    members: int = 1
    initial_offset: str = LATEST
    is_ordered: bool = True
    delivery: Delivery = DEFAULT_DELIVERY
    dead_letter_topic: str = ""
    key_type: KeyType = KeyType.STRING
    extensions: Mapping[str, str] = field(default_factory=dict)
    session_timeout_s: float = 10.0


def read(environment: Mapping[str, str]) -> Settings:
    """Raises ConfigError with everything that is wrong."""
    wrong: list[str] = []

    def chosen(name: str, choices: tuple[str, ...]) -> str:
        value = environment.get(name) or choices[0]
        if value not in choices:
            wrong.append(f"{name} = {value!r}, expected one of {', '.join(choices)}")
            return choices[0]
        return value

    def needed(name: str) -> str:
        value = environment.get(name, "").strip()
        if not value:
            wrong.append(f"{name} is not set")
        return value

    def several(name: str) -> tuple[str, ...]:
        return tuple(each.strip() for each in needed(name).split(",") if each.strip())

    def parsed(name: str) -> dict[str, Any]:
        try:
            found = json.loads(environment.get(name) or "{}")
        except ValueError as error:
            wrong.append(f"{name} is not JSON: {error}")
            return {}
        if not isinstance(found, dict):
            wrong.append(f"{name} = {found!r}, expected a JSON object")
            return {}
        return found

    members = environment.get("KAFKA_CONSUMERS") or "1"
    if not (members.isascii() and members.isdigit() and 0 < int(members) < 1000):
        wrong.append(f"KAFKA_CONSUMERS = {members!r}, expected a number from 1 on")
        members = "1"
    session = environment.get("KAFKA_SESSION_TIMEOUT") or "PT10S"
    session_timeout_s = period_s(session)
    if session_timeout_s is None or session_timeout_s < 1:
        wrong.append(f"KAFKA_SESSION_TIMEOUT = {session!r}, expected a duration of 1 s or more such as PT10S")
        session_timeout_s = 10.0
    delivery = parsed("KAFKA_DELIVERY")
    wrong += [f"KAFKA_DELIVERY: {each.field}: {each.message}" for each in delivery_problems(delivery)]
    sink = needed("K_SINK")
    if sink and urlsplit(sink).scheme not in ("http", "https"):
        wrong.append(f"K_SINK = {sink!r}, expected an http or https URL")
    extensions = parsed("K_CE_OVERRIDES").get("extensions") or {}
    security = Security()
    try:
        security = _security(environment)
    except KafkaProblem as problem:
        wrong.append(str(problem))
    namespace, name = environment.get("NAMESPACE") or "default", environment.get("NAME") or "kafka-source"
    settings = Settings(
        cluster=Cluster(several("KAFKA_BOOTSTRAP_SERVERS"), security),
        topics=several("KAFKA_TOPICS"),
        group=needed("KAFKA_CONSUMER_GROUP"),
        sink=sink,
        source=f"/apis/v1/namespaces/{namespace}/kafkasources/{name}",
        members=int(members),
        initial_offset=chosen("KAFKA_INITIAL_OFFSET", (LATEST, EARLIEST)),
        is_ordered=chosen("KAFKA_ORDERING", (ORDERED, UNORDERED)) == ORDERED,
        delivery=parse_delivery(delivery, namespace) if delivery else DEFAULT_DELIVERY,
        dead_letter_topic=environment.get("KAFKA_DEAD_LETTER_TOPIC", ""),
        key_type=KeyType(chosen("KEY_TYPE", tuple(each.value for each in KeyType))),
        extensions={key: value for key, value in extensions.items() if isinstance(value, str)},
        session_timeout_s=session_timeout_s,
    )
    if wrong:
        raise ConfigError("; ".join(wrong), hint=_HINT)
    return settings


def _security(environment: Mapping[str, str]) -> Security:
    """By the names that Knative's own adapter has, or of a Secret that is mounted."""
    has_sasl = environment.get("KAFKA_NET_SASL_ENABLE", "").lower() == "true"
    has_tls = environment.get("KAFKA_NET_TLS_ENABLE", "").lower() == "true"
    folder = environment.get("KAFKA_AUTH_DIR", "")
    if folder:
        if has_sasl or has_tls:
            raise KafkaProblem("KAFKA_AUTH_DIR and KAFKA_NET_* are both set, expected one of them")
        return _mounted(pathlib.Path(folder))

    def value(name: str) -> str:
        return environment.get(f"KAFKA_NET_{name}", "").strip()

    return checked(
        Security(
            protocol=PROTOCOLS[has_sasl + 2 * has_tls],
            mechanism=(value("SASL_TYPE") or "PLAIN") if has_sasl else "",
            user=value("SASL_USER") if has_sasl else "",
            password=value("SASL_PASSWORD") if has_sasl else "",
            ca=value("TLS_CA_CERT") if has_tls else "",
            certificate=value("TLS_CERT") if has_tls else "",
            key=value("TLS_KEY") if has_tls else "",
        ),
        "KAFKA_NET",
    )


def _mounted(folder: pathlib.Path) -> Security:
    """A Secret of a Broker: a file for each key."""
    try:
        data = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
        return security_of_secret(data)
    except OSError as error:
        raise KafkaProblem(f"KAFKA_AUTH_DIR: {error.strerror}: {error.filename}") from error
    except KafkaProblem as problem:
        raise KafkaProblem(f"KAFKA_AUTH_DIR {folder}: {problem}") from problem
