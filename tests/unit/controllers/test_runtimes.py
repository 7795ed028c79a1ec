from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.controllers.inferenceservice.runtimes import Rejection, Runtime, choose_runtime

Object = dict[str, Any]


def made(name: str, *formats: Object, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Object:
    supported = list(formats) or [{"name": "xgboost", "autoSelect": True}]
    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"supportedModelFormats": supported, "protocolVersions": ["v1", "v2"], **spec},
    }


def model(**fields: Any) -> Object:
    return {"modelFormat": {"name": "xgboost"}, **fields}


def chosen(wanted: Object, namespaced: list[Object], cluster_wide: list[Object]) -> str:
    found = choose_runtime(wanted, namespaced, cluster_wide)
    assert isinstance(found, Runtime), found
    return f"{'cluster' if found.is_cluster_wide else 'own'}/{found.name}"


def refused(wanted: Object, namespaced: list[Object], cluster_wide: list[Object]) -> Rejection:
    found = choose_runtime(wanted, namespaced, cluster_wide)
    assert isinstance(found, Rejection), found
    return found


def test_the_namespace_s_own_come_before_the_cluster_s() -> None:
    strong = made("strong", {"name": "xgboost", "autoSelect": True, "priority": 9})
    assert chosen(model(), [made("plain")], [strong]) == "own/plain"


def test_priority_then_the_newest_then_the_name() -> None:
    low = made("a", {"name": "xgboost", "autoSelect": True, "priority": 1}, created="2026-05-01T00:00:00Z")
    high = made("b", {"name": "xgboost", "autoSelect": True, "priority": 2})
    assert chosen(model(), [], [low, high, made("c")]) == "cluster/b"
    newer = made("z", created="2026-02-01T00:00:00Z")
    assert chosen(model(), [], [made("a"), newer]) == "cluster/z"
    assert chosen(model(), [], [made("b"), made("a")]) == "cluster/a"


def test_a_runtime_with_an_older_protocol_comes_first_among_equals() -> None:
    only_v2 = made("a", protocolVersions=["v2"], created="2026-05-01T00:00:00Z")
    assert chosen(model(protocolVersion="v2"), [], [only_v2, made("b")]) == "cluster/b"


@pytest.mark.parametrize(
    "spec",
    [
        {"disabled": True},
        {"multiModel": True},
        {"workerSpec": {"containers": []}},
        {"protocolVersions": ["grpc-v2"]},
        {"supportedModelFormats": [{"name": "xgboost"}]},
        {"supportedModelFormats": [{"name": "onnx", "autoSelect": True}]},
    ],
)
def test_what_is_not_selected(spec: Object) -> None:
    rejection = refused(model(), [], [made("a", **spec)])
    assert rejection.reason == "NoSupportingRuntime"
    assert "known runtimes: a" in rejection.message


def test_without_a_protocol_a_runtime_must_speak_v1_to_be_selected() -> None:
    only_v2 = made("a", protocolVersions=["v2"])
    assert refused(model(), [], [only_v2]).reason == "NoSupportingRuntime"
    assert chosen(model(protocolVersion="v2"), [], [only_v2]) == "cluster/a"
    assert chosen(model(runtime="a"), [], [only_v2]) == "cluster/a"
    assert chosen(model(protocolVersion="v9"), [], [made("b", protocolVersions=[])]) == "cluster/b"


def test_a_version_must_be_the_runtime_s() -> None:
    found = made("a", {"name": "xgboost", "version": "2", "autoSelect": True})
    assert chosen({"modelFormat": {"name": "xgboost", "version": "2"}}, [], [found]) == "cluster/a"
    assert "xgboost 3" in refused({"modelFormat": {"name": "xgboost", "version": "3"}}, [], [found]).message


def test_a_named_runtime_must_exist_be_enabled_and_fit() -> None:
    named = made("a", {"name": "xgboost"})
    assert chosen(model(runtime="a"), [], [named]) == "cluster/a"
    assert chosen(model(runtime="a"), [named], [named]) == "own/a"
    assert refused(model(runtime="b"), [], [named]).reason == "RuntimeNotRecognized"
    assert refused(model(runtime="a"), [], [made("a", disabled=True)]).reason == "RuntimeDisabled"
    assert refused(model(runtime="a", protocolVersion="grpc-v1"), [], [named]).reason == "NoSupportingRuntime"
    assert (
        refused({"modelFormat": {"name": "onnx"}, "runtime": "a"}, [], [named]).reason
        == "NoSupportingRuntime"
    )


FORMATS = st.fixed_dictionaries(
    {"name": st.sampled_from(["xgboost", "onnx"])},
    optional={
        "autoSelect": st.booleans(),
        "priority": st.integers(1, 3),
        "version": st.sampled_from(["1", "2"]),
    },
)
RUNTIMES = st.lists(
    st.builds(
        lambda name, formats, disabled: made(name, *formats, disabled=disabled),
        st.sampled_from("abcdef"),
        st.lists(FORMATS, min_size=1, max_size=3),
        st.booleans(),
    ),
    max_size=5,
    unique_by=lambda runtime: runtime["metadata"]["name"],
)


@given(RUNTIMES, RUNTIMES, st.randoms())
def test_the_choice_does_not_depend_on_the_order_and_fits(
    own: list[Object], shared: list[Object], random: Any
) -> None:
    first = choose_runtime(model(), own, shared)
    random.shuffle(own)
    random.shuffle(shared)
    assert choose_runtime(model(), own, shared) == first
    if isinstance(first, Runtime):
        assert not first.spec["disabled"]
        assert any(
            f["name"] == "xgboost" and f.get("autoSelect") for f in first.spec["supportedModelFormats"]
        )
