"""Kubernetes protobuf bodies: what JSON would have said, and no crash on any bytes."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.apiserver import protobuf
from glowplug.errors import BadRequest, UnsupportedMedia


def varint(value: int) -> bytes:
    value %= 2**64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version: str, kind: str, message: bytes) -> bytes:
    return (
        b"k8s\0"
        + field(1, field(1, api_version) + field(2, kind))
        + field(2, message)
        + field(3, "")
        + field(4, "")
    )


def meta(*more: bytes) -> bytes:
    # What Go writes for fields without a value is there too: empty texts, a zero generation, an empty time.
    return field(
        1, field(1, "x") + field(2, "") + field(3, "default") + field(7, 0) + field(8, b"") + b"".join(more)
    )


def test_config_map() -> None:
    message = meta(field(11, field(1, "a") + field(2, "b"))) + field(2, field(1, "key") + field(2, "value"))
    message += field(2, field(1, "empty")) + field(3, field(1, "bin") + field(2, b"\x00\xff")) + field(4, 0)
    assert protobuf.decode(body("v1", "ConfigMap", message)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "namespace": "default", "labels": {"a": "b"}},
        "data": {"key": "value", "empty": ""},
        "binaryData": {"bin": "AP8="},
        "immutable": False,
    }


def test_pod_with_inlined_and_special_types() -> None:
    source = field(6, field(1, "secret-name"))  # secret
    volume = field(1, field(1, "v") + field(2, source))
    probe = field(1, field(2, field(1, "/ready") + field(2, field(1, 1) + field(3, "http")))) + field(4, 5)
    resources = field(1, field(1, "cpu") + field(2, field(1, "100m")))
    key_ref = field(1, field(1, "store")) + field(2, "REDIS_URL")
    env = field(1, "URL") + field(3, field(3, key_ref))
    container = (
        field(1, "c")
        + field(2, "image")
        + field(4, "")
        + field(7, env)
        + field(8, resources)
        + field(11, probe)
    )
    spec = volume + field(2, container) + field(4, 0)
    found = protobuf.decode(body("v1", "Pod", meta() + field(2, spec) + field(3, b"")))
    assert found["spec"]["volumes"] == [{"name": "v", "secret": {"secretName": "secret-name"}}]
    assert found["spec"]["terminationGracePeriodSeconds"] == 0, "a pointer's zero is a value"
    assert found["spec"]["containers"] == [
        {
            "name": "c",
            "image": "image",
            "args": [""],
            "env": [{"name": "URL", "valueFrom": {"configMapKeyRef": {"name": "store", "key": "REDIS_URL"}}}],
            "resources": {"limits": {"cpu": "100m"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
        }
    ]
    assert "status" not in found


def test_times() -> None:
    message = meta() + field(10, field(1, 1767323045)) + field(6, field(1, 1767323045) + field(2, 0))
    event = protobuf.decode(body("v1", "Event", message))
    assert event["firstTimestamp"] == "2026-01-02T03:04:05Z"
    lease = field(2, field(1, "me") + field(2, 15) + field(3, field(1, 1767323045) + field(2, 123456000)))
    found = protobuf.decode(body("coordination.k8s.io/v1", "Lease", meta() + lease))
    assert found["spec"]["acquireTime"] == "2026-01-02T03:04:05.123456Z"
    assert found["spec"]["leaseDurationSeconds"] == 15


def test_delete_options_of_any_group() -> None:
    message = field(1, 0) + field(4, "Foreground") + field(5, "All")
    found = protobuf.decode(body("batch/v1", "DeleteOptions", message))
    assert (found["gracePeriodSeconds"], found["propagationPolicy"], found["dryRun"]) == (
        0,
        "Foreground",
        ["All"],
    )


def test_negative_numbers_and_unknown_fields() -> None:
    message = field(1, -5) + field(99, "from the future") + varint(98 << 3 | 5) + b"1234"
    assert protobuf.decode(body("v1", "DeleteOptions", message))["gracePeriodSeconds"] == -5


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{}",
        b"k8s\0\xff",
        body("v1", "ConfigMap", field(1, 5)),
        body("v1", "ConfigMap", b"\x0a\x7f"),
        body("v1", "ConfigMap", meta() + b"\x0b"),
        body("v1", "ConfigMap", field(1, field(1, b"\xff\xfe"))),
        body("v1", "ConfigMap", b"\xff" * 11),
    ],
)
def test_broken_bytes(broken: bytes) -> None:
    with pytest.raises((BadRequest, UnsupportedMedia)):
        protobuf.decode(broken)


def test_kind_without_a_table_says_what_to_do() -> None:
    with pytest.raises(UnsupportedMedia, match="v1 Node") as caught:
        protobuf.decode(body("v1", "Node", b""))
    assert "kubectl apply" in caught.value.hint


@given(st.binary(max_size=200), st.sampled_from([("v1", "Pod"), ("v1", "ConfigMap"), ("batch/v1", "Job")]))
def test_any_bytes_are_an_object_or_refused(data: bytes, kind: tuple[str, str]) -> None:
    with suppress(BadRequest):
        found: Any = protobuf.decode(body(*kind, data))
        assert found["kind"] == kind[1]


def test_every_message_of_the_table_is_in_it() -> None:
    tables = protobuf._tables()
    wanted = {one.type for fields in tables.values() for one in fields.values() if "." in one.type}
    assert wanted <= tables.keys()
    scalars = {one.type for fields in tables.values() for one in fields.values() if "." not in one.type}
    assert scalars <= {"s", "i", "b", "y", *protobuf._SPECIAL}
    assert all(
        re.fullmatch(r"[A-Za-z0-9_]+", one.name) for fields in tables.values() for one in fields.values()
    )
