"""Selectors: grammar, matching, and the needles that spare decoding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.apiserver.codec import encode
from glowplug.apiserver.selectors import Selector, equal, parse
from glowplug.errors import BadRequest
from glowplug.spec.kinds import CONFIG_MAP, EVENT, JOB, POD, SECRET

LABELS = {"app": "flights", "tier": "gold", "n": "7", "serving.kserve.io/inferenceservice": "flights"}


def labelled(labels: dict[str, str] | None) -> dict[str, Any]:
    return {"metadata": {"name": "x", "namespace": "default", "labels": labels}}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=flights", True),
        ("app==flights", True),
        ("app = flights", True),
        ("app!=flights", False),
        ("other!=flights", True),
        ("app", True),
        ("!app", False),
        ("! missing", True),
        ("app in (flights, trains)", True),
        ("app in(trains)", False),
        ("app notin (trains)", True),
        ("missing notin (a)", True),
        ("app,tier=gold", True),
        ("app in (flights,trains),tier notin (silver),!missing,n>6", True),
        ("n>7", False),
        ("n<8", True),
        ("tier>1", False),
        ("serving.kserve.io/inferenceservice=flights", True),
        ("missing=", False),
    ],
)
def test_label_selectors(text: str, matches: bool) -> None:
    obj = labelled(LABELS)
    selector = parse(CONFIG_MAP, text, "")
    assert selector.matches(obj) is matches
    assert not matches or selector.may_match(encode(obj))


def test_object_without_labels() -> None:
    assert not parse(CONFIG_MAP, "app", "").matches(labelled(None))
    assert parse(CONFIG_MAP, "!app", "").matches({"metadata": {"name": "x"}})


@pytest.mark.parametrize(
    "text", ["a=b=c", "=b", "a in b", "a in (b", "a,,b", "a>b", "-a", "a=b!", "a=" + "x" * 64]
)
def test_label_selectors_that_are_none(text: str) -> None:
    with pytest.raises(BadRequest):
        parse(CONFIG_MAP, text, "")


@given(st.text(max_size=40))
def test_any_text_is_a_selector_or_a_bad_request(text: str) -> None:
    for labels, fields in ((text, ""), ("", text)):
        try:
            selector = parse(POD, labels, fields)
        except BadRequest:
            continue
        assert selector.matches(labelled(LABELS)) in (True, False)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["1", "x", "y.z"])),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["1", "x", "y.z"]), min_size=1),
)
def test_needles_never_lose_a_match(labels: dict[str, str], wanted: dict[str, str]) -> None:
    obj = labelled(labels)
    selector = equal(wanted)
    assert selector.matches(obj) == (wanted.items() <= labels.items())
    assert selector.may_match(encode(obj)) or not selector.matches(obj)


def test_field_selectors() -> None:
    event = {
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p", "uid": "u"},
        "type": "Warning",
        "reason": "BackOff",
        "source": {"component": "glowplug"},
    }
    assert parse(EVENT, "", "involvedObject.name=p,involvedObject.uid=u,type!=Normal").matches(event)
    assert parse(EVENT, "", "source=glowplug,reason==BackOff").matches(event)
    assert not parse(EVENT, "", "involvedObject.namespace=default").matches(event)
    pod = {"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Running"}}
    assert parse(POD, "", "status.phase!=Succeeded,status.phase!=Failed,spec.nodeName=").matches(pod)
    assert parse(SECRET, "", "type=Opaque").matches({"metadata": {"name": "s"}, "type": "Opaque"})
    job = {"metadata": {"name": "j"}, "status": {"successful": 1}}
    selector = parse(JOB, "", "status.successful=1")
    assert selector.matches(job)
    assert selector.may_match(encode(job))
    assert parse(POD, "", r"metadata.name=a\,b\=c").name == "a,b=c"


def test_unknown_fields_are_named_with_the_known_ones() -> None:
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.color") as caught:
        parse(CONFIG_MAP, "", "spec.color=red")
    assert "metadata.name, metadata.namespace" in caught.value.hint
    with pytest.raises(BadRequest, match="can't understand"):
        parse(CONFIG_MAP, "", "metadata.name")


def test_empty_selector() -> None:
    assert Selector().is_empty
    assert parse(CONFIG_MAP, " ", "").is_empty
    assert not equal({"a": "b"}).is_empty
