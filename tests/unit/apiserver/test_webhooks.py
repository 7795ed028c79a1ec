"""Calling webhooks: order, one pass more, failing open and closed, and what an answer may say."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from unit.apiserver.world import World, thing

from glowplug.apiserver.webhook_client import CallFailed
from glowplug.apiserver.webhook_configurations import Hook, default_mutating
from glowplug.apiserver.webhook_matching import CREATE, DELETE, Attributes
from glowplug.apiserver.webhook_review import Denied, verdict
from glowplug.apiserver.webhooks import Webhooks
from glowplug.errors import ApiError
from glowplug.spec import kinds

Object = dict[str, Any]
Answer = Callable[[Object], Object]


class Caller:
    """Answers reviews by the webhooks' names; an answer that is an exception is raised."""

    def __init__(self, **answers: Answer | Exception) -> None:
        self.answers = answers
        self.called: list[str] = []

    async def __call__(self, hook: Hook, body: bytes) -> bytes:
        request = orjson.loads(body)["request"]
        name = hook.name.split(".")[0]
        self.called.append(name)
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        response = {"uid": request["uid"], "allowed": True, **answer(request)}
        return orjson.dumps(review(response))


def review(response: Object) -> Object:
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def patch(*operations: Object) -> Object:
    return {"patchType": "JSONPatch", "patch": base64.b64encode(orjson.dumps(operations)).decode()}


def marking(mark: str) -> Answer:
    return lambda request: patch(
        {"op": "replace", "path": "/data/marks", "value": request["object"]["data"]["marks"] + mark}
    )


def nothing(request: Object) -> Object:
    return {}


def configure(world: World, configuration: str, *names: str, is_mutating: bool = True, **more: Any) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
    hooks = [
        {
            "name": f"{name}.example.com",
            "clientConfig": {"url": "https://127.0.0.1"},
            "rules": [rule],
            **({"reinvocationPolicy": "IfNeeded"} if name.endswith("_again") else {}),
            **more,
        }
        for name in names
    ]
    kind = kinds.MUTATING_WEBHOOK_CONFIGURATION if is_mutating else kinds.VALIDATING_WEBHOOK_CONFIGURATION
    world.objects.create(kind, default_mutating({"metadata": {"name": configuration}, "webhooks": hooks}))


def asked(**more: Any) -> Attributes:
    new = {**thing("n"), "data": {"marks": ""}}
    return Attributes(
        **{
            "kind": kinds.CONFIG_MAP,
            "namespace": "default",
            "name": "n",
            "operation": CREATE,
            "new": new,
            **more,
        }
    )


def test_without_configurations_nothing_is_concerned(world: World) -> None:
    webhooks = Webhooks(world.objects, Caller())
    assert not webhooks.concern(asked())
    configure(world, "c", "one")
    assert webhooks.concern(asked())
    assert not webhooks.concern(asked(kind=kinds.SECRET))
    world.objects.delete(kinds.MUTATING_WEBHOOK_CONFIGURATION, "", "c")
    assert not webhooks.concern(asked())


@pytest.mark.parametrize(
    ("names", "changing", "called"),
    [
        ("a b c", "", "a b c"),
        ("a b c", "a b c", "a b c"),
        ("a_again b", "b", "a_again b a_again"),
        ("a_again b", "a_again", "a_again b"),
        ("a b_again", "a", "a b_again"),
        ("a_again b_again c", "b_again", "a_again b_again c a_again"),
        ("a_again b_again c", "a_again b_again c", "a_again b_again c a_again b_again"),
        ("a_again b c_again", "b", "a_again b c_again a_again"),
        (
            "a_again b_again c_again",
            "a_again b_again c_again",
            "a_again b_again c_again a_again b_again c_again",
        ),
        ("c_again a b", "c_again a b", "c_again a b c_again"),
    ],
)
async def test_order_and_the_second_pass(world: World, names: str, changing: str, called: str) -> None:
    for place, name in reversed(list(enumerate(names.split()))):
        configure(world, f"c{place}", name)
    answers = {name: marking(name[0]) if name in changing.split() else nothing for name in names.split()}
    caller = Caller(**answers)
    mutated = await Webhooks(world.objects, caller).mutate(asked(), [])
    assert caller.called == called.split()
    marks = "".join(name[0] for name in called.split() if name in changing.split())
    assert mutated is not None
    assert mutated["data"]["marks"] == marks


async def test_a_denial_ends_it_and_keeps_the_warnings(world: World) -> None:
    configure(world, "c", "one", "two", "three")
    caller = Caller(
        one=lambda request: {"warnings": ["w1"]},
        two=lambda request: {"allowed": False, "status": {"message": "no", "code": 200}, "warnings": ["w2"]},
    )
    warnings: list[str] = []
    with pytest.raises(Denied) as caught:
        await Webhooks(world.objects, caller).mutate(asked(), warnings)
    assert (caught.value.code, warnings) == (400, ["w1", "w2"])
    assert caught.value.status({"name": "n"}) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'admission webhook "two.example.com" denied the request: no',
        "code": 400,
    }


async def test_validating_webhooks_are_all_asked_and_the_first_error_counts(world: World) -> None:
    configure(world, "c", "one", "two", "three", is_mutating=False)
    caller = Caller(one=nothing, two=CallFailed("gone"), three=lambda request: {"allowed": False})
    with pytest.raises(ApiError, match=r'failed calling webhook "two.example.com": gone'):
        await Webhooks(world.objects, caller).validate(asked(), [])
    assert sorted(caller.called) == ["one", "three", "two"]
    caller.answers["two"] = nothing
    with pytest.raises(Denied, match="three"):
        await Webhooks(world.objects, caller).validate(asked(), [])
    caller.answers["three"] = lambda request: {"warnings": ["w"]}
    warnings: list[str] = []
    await Webhooks(world.objects, caller).validate(asked(), warnings)
    assert warnings == ["w"]


async def test_failing_open(world: World) -> None:
    configure(world, "c", "one", "two", failurePolicy="Ignore")
    configure(world, "v", "one", "two", is_mutating=False, failurePolicy="Ignore")
    webhooks = Webhooks(world.objects, Caller(one=CallFailed("gone"), two=marking("b")))
    mutated = await webhooks.mutate(asked(), [])
    assert mutated is not None
    assert mutated["data"]["marks"] == "b"
    # A validating webhook that answers with a patch has not answered.
    await webhooks.validate(asked(), [])


async def test_a_delete_cannot_be_changed(world: World) -> None:
    configure(world, "c", "one", failurePolicy="Ignore")
    caller = Caller(one=lambda request: patch({"op": "remove", "path": "/data"}))
    with pytest.raises(ApiError, match="not supported for this operation"):
        await Webhooks(world.objects, caller).mutate(asked(operation=DELETE, new=None, old=thing("n")), [])
    caller.answers["one"] = lambda request: patch()
    assert await Webhooks(world.objects, caller).mutate(asked(operation=DELETE, new=None), []) is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "must be an object"),
        (orjson.dumps({**review({"uid": "u", "allowed": True}), "apiVersion": "v1"}), "got apiVersion='v1'"),
        (
            orjson.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}),
            "response is NoneType",
        ),
        (orjson.dumps(review({"uid": "x", "allowed": True})), 'expected response.uid="u"'),
        (orjson.dumps(review({"uid": "u"})), "response.allowed is None"),
        (orjson.dumps(review({"uid": "u", "allowed": True, "patch": "W10="})), "not response.patchType"),
        (orjson.dumps(review({"uid": "u", "allowed": True, "patchType": "JSONPatch"})), "not response.patch"),
        (
            orjson.dumps(review({"uid": "u", "allowed": True, "patch": "e30=", "patchType": "MergePatch"})),
            "'MergePatch', must be JSONPatch",
        ),
        (
            orjson.dumps(review({"uid": "u", "allowed": True, "patch": "e30=", "patchType": "JSONPatch"})),
            "no list of operations",
        ),
    ],
)
def test_what_is_no_answer(answer: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verdict(answer, "u", is_mutating=True)
