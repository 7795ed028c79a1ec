"""Admission webhooks as clients and webhooks see them: a real HTTPS webhook, the real kubectl, real kopf operators."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from local.apiserver_fixture import ApiLab, api_server, config_map, isvc, wait_until

from glowplug.errors import NotFound
from glowplug.operators import webhook_configuration
from glowplug.operators.api import Api, connection
from glowplug.operators.certificate import Certificate, self_made, shared, utc_now
from glowplug.operators.webhook import Webhook, WebhookConfig
from glowplug.spec.kinds import CONFIG_MAP, INFERENCE_SERVICE, MUTATING_WEBHOOK_CONFIGURATION

Object = dict[str, Any]
MAPS = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
SERVICES = {
    "apiGroups": ["serving.kserve.io"],
    "apiVersions": ["*"],
    "resources": ["inferenceservices"],
}
LABELLED = {"matchLabels": {"hooked": "yes"}}


@dataclass
class Hook:
    """A webhook on a port of its own; `answer` makes the response of a request, by path."""

    port: int
    ca: bytes
    answers: dict[str, Callable[[Object], Object]] = field(default_factory=dict)
    requests: list[Object] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def asked(self, operation: str = "") -> list[Object]:
        return [one for one in self.requests if operation in ("", one["operation"])]

    def webhook(self, name: str, path: str = "/", **options: Any) -> Object:
        """A webhook of a configuration that calls this one."""
        rule = {**MAPS, "operations": ["CREATE", "UPDATE"]}
        client = {
            "url": f"https://127.0.0.1:{self.port}{path}",
            "caBundle": base64.b64encode(self.ca).decode(),
        }
        return {
            "name": f"{name}.example.com",
            "clientConfig": client,
            "rules": [rule],
            "objectSelector": LABELLED,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **options,
        }


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    certificate = self_made(("127.0.0.1",), utc_now())
    (tmp_path / "crt").write_bytes(certificate.chain)
    (tmp_path / "key").write_bytes(certificate.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    hook = Hook(0, certificate.authority)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert review["kind"] == "AdmissionReview"
            request = review["request"]
            hook.requests.append(request)
            hook.paths.append(self.path)
            response = hook.answers[self.path.split("?")[0]](request)
            body = response.pop("raw", None)
            review = {**review, "response": {"uid": request["uid"], "allowed": True, **response}}
            del review["request"]
            content = json.dumps(review).encode() if body is None else body
            try:
                self.send_response(response.get("http", 200))
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the API no longer waits

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def get_request(self) -> tuple[Any, Any]:
            plain, address = super().get_request()
            return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that does not trust us hangs up

    server = Server(("127.0.0.1", 0), Handler)
    hook.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="webhook")
    thread.start()
    yield hook
    hook.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiLab]:
    with api_server(tmp_path_factory.mktemp("webhooks")) as lab:
        yield lab


@contextmanager
def configured(
    lab: ApiLab, *webhooks: Object, name: str = "test", is_mutating: bool = True
) -> Iterator[None]:
    """With this configuration stored, as kubectl stores it."""
    kind = "Mutating" if is_mutating else "Validating"
    lab.kubectl("apply", "-f", "-", stdin=json.dumps(configuration(*webhooks, name=name, kind=kind)))
    try:
        yield
    finally:
        lab.kubectl("delete", f"{kind.lower()}webhookconfiguration", name, "--ignore-not-found")


def configuration(*webhooks: Object, name: str = "test", kind: str = "Mutating") -> Object:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind}WebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": list(webhooks),
    }


def patch(*operations: Object, **more: Any) -> Object:
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"patchType": "JSONPatch", "patch": encoded, **more}


def adding(key: str, value: str) -> Callable[[Object], Object]:
    return lambda request: patch({"op": "add", "path": f"/data/{key}", "value": value})


def mapped(name: str, namespace: str = "default", **data: str) -> Object:
    """A ConfigMap that the webhooks of these tests select."""
    found = config_map(name, namespace, **data)
    found["metadata"]["labels"] = {"hooked": "yes"}
    return found


def stored(lab: ApiLab, name: str) -> Object:
    return lab.do(lab.objects.get, CONFIG_MAP, "default", name)


def test_every_way_of_writing_goes_through_a_mutating_webhook(lab: ApiLab, hook: Hook) -> None:
    hook.answers["/"] = lambda request: patch(
        {"op": "add", "path": "/data/seen", "value": request["operation"]},
        {"op": "add", "path": "/metadata/annotations", "value": {"by": "hook"}}
        if "annotations" not in request["object"]["metadata"]
        else {"op": "add", "path": "/metadata/annotations/by", "value": "hook"},
        warnings=["the hook was here"],
    )
    with configured(lab, hook.webhook("mutate")):
        shown = lab.kubectl("create", "-f", "-", stdin=json.dumps(mapped("m", a="1")), code=None)
        assert "Warning: the hook was here" in shown
        assert stored(lab, "m")["data"] == {"a": "1", "seen": "CREATE"}
        assert stored(lab, "m")["metadata"]["annotations"] == {"by": "hook"}
        # What the webhook added belongs to nobody.
        (entry,) = stored(lab, "m")["metadata"]["managedFields"]
        assert sorted(entry["fieldsV1"]["f:data"]) == [".", "f:a"]

        for arguments, stdin in (
            (("patch", "cm", "m", "--type=merge", "-p", '{"data":{"a":"2"}}'), ""),
            (("patch", "cm", "m", "--type=json", "-p", '[{"op":"add","path":"/data/b","value":"3"}]'), ""),
            (("patch", "cm", "m", "-p", '{"data":{"c":"4"}}'), ""),
            (("replace", "-f", "-"), json.dumps(mapped("m", a="5"))),
            (("apply", "-f", "-"), json.dumps(mapped("m", a="6"))),
            (("apply", "--server-side", "--force-conflicts", "-f", "-"), json.dumps(mapped("m", a="7"))),
        ):
            before = len(hook.requests)
            lab.kubectl(*arguments, stdin=stdin)
            # kubectl itself writes more than once where it takes over from its own client-side apply.
            assert len(hook.requests) > before, arguments
            assert hook.requests[-1]["operation"] == "UPDATE"
            assert stored(lab, "m")["data"]["seen"] == "UPDATE", arguments
        assert stored(lab, "m")["data"]["a"] == "7"
        lab.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(mapped("applied", a="1")))
        assert stored(lab, "applied")["data"] == {"a": "1", "seen": "CREATE"}
        # Applied again, it neither conflicts nor takes away what the webhook added.
        version = stored(lab, "applied")["metadata"]["resourceVersion"]
        hook.answers["/"] = lambda request: {}
        lab.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(mapped("applied", a="1")))
        assert stored(lab, "applied")["data"] == {"a": "1", "seen": "CREATE"}
        assert stored(lab, "applied")["metadata"]["resourceVersion"] == version

        # Not selected, and not ruled: nobody is asked.
        before = len(hook.requests)
        lab.kubectl("create", "configmap", "other")
        lab.kubectl("create", "-f", "-", stdin=json.dumps({**mapped("m"), "kind": "Secret"}))
        lab.kubectl("delete", "cm", "m", "applied", "other")
        lab.kubectl("delete", "secret", "m")
        assert len(hook.requests) == before


def test_what_a_webhook_is_told(lab: ApiLab, hook: Hook) -> None:
    hook.answers["/"] = lambda request: {}
    rule = {**MAPS, "operations": ["*"]}
    with (
        configured(lab, hook.webhook("tell", rules=[rule])),
        configured(lab, hook.webhook("check", rules=[rule]), is_mutating=False),
        lab.client() as client,
    ):
        maps = "/api/v1/namespaces/default/configmaps"
        created = client.post(f"{maps}?dryRun=All", json=mapped("t", a="1"))
        assert created.status_code == 201
        created = client.post(f"{maps}?fieldManager=me", json=mapped("t", a="1"))
        changed = client.patch(
            f"{maps}/t", json={"data": {"a": "2"}}, headers={"content-type": "application/merge-patch+json"}
        )
        client.delete(f"{maps}/t").raise_for_status()
    dry, _, first, checked, update, _, delete, last = hook.requests
    assert (dry["dryRun"], first["dryRun"]) == (True, False)
    assert dry["options"]["dryRun"] == ["All"]
    assert first["operation"] == "CREATE"
    assert first["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert first["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (first["namespace"], first["name"]) == ("default", "t")
    assert first["userInfo"]["username"] == "glowplug-admin"
    assert first["options"] == {
        "apiVersion": "meta.k8s.io/v1",
        "kind": "CreateOptions",
        "fieldManager": "me",
    }
    assert first["oldObject"] is None
    assert first["object"]["data"] == {"a": "1"}
    assert first["object"]["metadata"]["managedFields"][0]["manager"] == "me"
    # The validating one sees what is stored, to its uid.
    assert checked["object"]["metadata"]["uid"] == created.json()["metadata"]["uid"]
    assert checked["uid"] != first["uid"]
    assert (update["object"]["data"], update["oldObject"]["data"]) == ({"a": "2"}, {"a": "1"})
    assert update["options"]["kind"] == "UpdateOptions"
    assert (delete["operation"], delete["object"]) == ("DELETE", None)
    assert delete["oldObject"] == changed.json()
    assert last["operation"] == "DELETE"
    assert hook.paths[0] == "/?timeout=10s"


def test_webhooks_are_called_in_the_order_of_names_and_again_where_they_ask_for_it(
    lab: ApiLab, hook: Hook
) -> None:
    def chain(mark: str) -> Callable[[Object], Object]:
        def answer(request: Object) -> Object:
            so_far = request["object"]["data"].get("chain", "")
            return patch({"op": "add", "path": "/data/chain", "value": so_far + mark})

        return answer

    for mark in "abc":
        hook.answers[f"/{mark}"] = chain(mark)
    with (
        configured(lab, hook.webhook("third", "/c"), name="2"),
        configured(
            lab,
            hook.webhook("first", "/a", reinvocationPolicy="IfNeeded"),
            hook.webhook("second", "/b"),
            name="1",
        ),
    ):
        lab.kubectl(
            "create", "-f", "-", stdin=json.dumps(mapped("chain")).replace('"data": {}', '"data": {"x": ""}')
        )
        assert stored(lab, "chain")["data"]["chain"] == "abca"
        hook.answers["/b"] = hook.answers["/c"] = lambda request: {}
        before = len(hook.requests)
        lab.kubectl("patch", "cm", "chain", "-p", '{"data":{"chain":"","x":"1"}}')
        assert stored(lab, "chain")["data"]["chain"] == "a"
        assert len(hook.requests) == before + 3
        lab.kubectl("delete", "cm", "chain")


def test_denied(lab: ApiLab, hook: Hook) -> None:
    status = {"message": "not on a Friday", "code": 418, "reason": "Teapot"}
    hook.answers["/no"] = lambda request: {"allowed": False, "status": status, "warnings": ["careful"]}
    hook.answers["/plain"] = lambda request: {"allowed": False}
    deny = hook.webhook("deny", "/no", rules=[{**MAPS, "operations": ["CREATE", "DELETE"]}])
    lab.kubectl("create", "-f", "-", stdin=json.dumps(mapped("kept")))
    for is_mutating in (True, False):
        with configured(lab, deny, is_mutating=is_mutating), lab.client() as client:
            shown = lab.kubectl("create", "-f", "-", stdin=json.dumps(mapped("no")), code=1)
            assert 'admission webhook "deny.example.com" denied the request: not on a Friday' in shown
            assert "Warning: careful" in shown
            answer = client.delete("/api/v1/namespaces/default/configmaps/kept")
            assert answer.headers["warning"] == '299 - "careful"'
            assert (answer.status_code, answer.json()["reason"]) == (418, "Teapot")
            assert "denied" in lab.kubectl("delete", "cm", "-l", "hooked=yes", code=1)
            assert stored(lab, "kept")
    with configured(lab, hook.webhook("deny", "/plain"), is_mutating=False), lab.client() as client:
        answer = client.post("/api/v1/namespaces/default/configmaps", json=mapped("no"))
        assert answer.status_code == 400
        assert answer.json() == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": 'admission webhook "deny.example.com" denied the request without explanation',
            "code": 400,
        }
    with pytest.raises(NotFound):
        stored(lab, "no")
    lab.kubectl("delete", "cm", "kept")


def test_a_webhook_that_fails_is_passed_over_or_stops_the_write(lab: ApiLab, hook: Hook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        dead = nobody.getsockname()[1]
    untrusted = base64.b64encode(self_made(("127.0.0.1",), utc_now()).authority).decode()
    url, right = f"https://127.0.0.1:{hook.port}", base64.b64encode(hook.ca).decode()
    hook.answers |= {
        "/500": lambda request: {"http": 500},
        "/html": lambda request: {"raw": b"<html>"},
        "/uid": lambda request: {"uid": "another"},
        "/patch": lambda request: {"patch": "W10="},
        "/base64": lambda request: {"patchType": "JSONPatch", "patch": "?"},
    }
    failures = [
        ({"url": f"https://127.0.0.1:{dead}", "caBundle": right}, "connect"),
        ({"url": f"{url}/500", "caBundle": untrusted}, "CERTIFICATE_VERIFY_FAILED"),
        ({"url": f"{url}/500", "caBundle": "Cg=="}, "CERTIFICATE_VERIFY_FAILED"),
        ({"url": f"{url}/500", "caBundle": base64.b64encode(b"none").decode()}, "caBundle"),
        ({"url": f"https://localhost:{hook.port}/500", "caBundle": right}, "CERTIFICATE_VERIFY_FAILED"),
        ({"url": f"{url}/500", "caBundle": right}, "answered 500"),
        ({"url": f"{url}/html", "caBundle": right}, "received invalid webhook response: not JSON"),
        ({"url": f"{url}/uid", "caBundle": right}, "expected response.uid="),
        ({"url": f"{url}/patch", "caBundle": right}, "response.patch but not response.patchType"),
        ({"url": f"{url}/base64", "caBundle": right}, "not base64"),
    ]
    hooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    with lab.client() as client:
        for client_config, expected in failures:
            webhook = hook.webhook("fails", clientConfig=client_config)
            client.post(hooks, json=configuration(webhook)).raise_for_status()
            refused = client.post("/api/v1/namespaces/default/configmaps", json=mapped("f"))
            assert refused.status_code == 500, client_config
            said = refused.json()["message"]
            assert said.startswith('Internal error occurred: failed calling webhook "fails.example.com"')
            assert expected in said
            client.put(
                f"{hooks}/test",
                json=configuration({**webhook, "failurePolicy": "Ignore"}),
            ).raise_for_status()
            made = client.post("/api/v1/namespaces/default/configmaps", json=mapped("f", a="1"))
            assert (made.status_code, made.json()["data"]) == (201, {"a": "1"}), made.text
            client.delete("/api/v1/namespaces/default/configmaps/f").raise_for_status()
            client.delete(f"{hooks}/test").raise_for_status()


def test_what_a_patch_breaks_is_refused_whatever_the_policy(lab: ApiLab, hook: Hook) -> None:
    hook.answers["/"] = lambda request: patch({"op": "remove", "path": "/data/absent"})
    with configured(lab, hook.webhook("bad", failurePolicy="Ignore")):
        assert "absent" in lab.kubectl("create", "-f", "-", stdin=json.dumps(mapped("b", a="1")), code=1)
        # Invalid by our own rules, which see what the webhooks have made.
        hook.answers["/"] = lambda request: patch({"op": "add", "path": "/data/no key", "value": ""})
        shown = lab.kubectl("create", "-f", "-", stdin=json.dumps(mapped("b", a="1")), code=1)
        assert "a valid config key" in shown
        hook.answers["/"] = lambda request: patch(
            {"op": "replace", "path": "/metadata/namespace", "value": "c"}
        )
        assert "immutable" in lab.kubectl("create", "-f", "-", stdin=json.dumps(mapped("b", a="1")), code=1)
        # Fields that nobody knows are dropped, and managers that cannot be read put back.
        hook.answers["/"] = lambda request: patch(
            {"op": "add", "path": "/unknown", "value": 1},
            {"op": "replace", "path": "/metadata/managedFields/0/operation", "value": "Guess"},
        )
        lab.kubectl("create", "-f", "-", stdin=json.dumps(mapped("b", a="1")))
        assert "unknown" not in stored(lab, "b")
        assert stored(lab, "b")["metadata"]["managedFields"][0]["operation"] == "Update"
        lab.kubectl("delete", "cm", "b")


def test_a_webhook_may_make_an_object_valid(lab: ApiLab, hook: Hook) -> None:
    hook.answers["/"] = lambda request: patch(
        {"op": "replace", "path": "/spec/predictor/minReplicas", "value": 2}
    )
    wrong = isvc("mended", labels={"hooked": "yes"})
    wrong["spec"]["predictor"] |= {"minReplicas": -1, "maxReplicas": 3}
    assert "minReplicas" in lab.kubectl("create", "-f", "-", stdin=json.dumps(wrong), code=1)
    rule = {**SERVICES, "operations": ["CREATE"]}
    with configured(lab, hook.webhook("mend", rules=[rule])):
        lab.kubectl("create", "-f", "-", stdin=json.dumps(wrong))
    found = lab.do(lab.objects.get, INFERENCE_SERVICE, "default", "mended")
    assert found["spec"]["predictor"]["minReplicas"] == 2
    lab.kubectl("delete", "isvc", "mended")


def test_no_webhook_is_asked_about_what_cannot_be_read(lab: ApiLab, hook: Hook) -> None:
    hook.answers["/"] = lambda request: {}
    wrong = mapped("w", a="1")
    wrong["metadata"]["labels"] = ["hooked"]
    with configured(lab, hook.webhook("all")), lab.client() as client:
        refused = client.post("/api/v1/namespaces/default/configmaps", json=wrong)
        assert refused.status_code == 422, refused.text
        absent = client.post("/api/v1/namespaces/absent/configmaps", json=mapped("w", "absent"))
        assert absent.status_code == 404
    assert hook.requests == []


def test_a_dry_run_asks_and_stores_nothing(lab: ApiLab, hook: Hook) -> None:
    hook.answers["/"] = adding("seen", "yes")
    with configured(lab, hook.webhook("dry", sideEffects="NoneOnDryRun")):
        shown = lab.kubectl(
            "apply", "--dry-run=server", "-o", "yaml", "-f", "-", stdin=json.dumps(mapped("dry", a="1"))
        )
    assert 'seen: "yes"' in shown
    assert [one["dryRun"] for one in hook.requests] == [True]
    with pytest.raises(NotFound):
        stored(lab, "dry")


def test_a_webhook_that_hangs_holds_up_its_own_write_alone(lab: ApiLab, hook: Hook) -> None:
    def hang(request: Object) -> Object:
        hook.release.wait(60)
        return {}

    hook.answers["/"] = hang
    slow = hook.webhook("hangs", timeoutSeconds=2)
    with configured(lab, slow), lab.client() as client:
        results: list[httpx.Response] = []

        def create() -> None:
            with lab.client() as own:
                results.append(own.post("/api/v1/namespaces/default/configmaps", json=mapped("slow")))

        threads = [threading.Thread(target=create) for _ in range(5)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(hook.requests) == 5)
        # All five wait, and everybody else is served.
        made = client.post("/api/v1/namespaces/default/configmaps", json=config_map("quick"))
        assert made.status_code == 201
        assert client.get("/api/v1/namespaces/default/configmaps/quick").status_code == 200
        assert client.delete("/api/v1/namespaces/default/configmaps/quick").status_code == 200
        assert results == []
        for thread in threads:
            thread.join()
    assert [one.status_code for one in results] == [500] * 5
    assert all("context deadline exceeded" in one.json()["message"] for one in results)
    with pytest.raises(NotFound):
        stored(lab, "slow")


def test_a_write_in_between_is_seen_and_not_lost(lab: ApiLab, hook: Hook) -> None:
    lab.kubectl("create", "-f", "-", stdin=json.dumps(mapped("raced", a="1")))

    def race(request: Object) -> Object:
        """Somebody else writes while the webhook thinks, the first two times."""
        if len(hook.requests) <= 2:
            live = stored(lab, "raced")
            live["data"]["others"] = str(len(hook.requests))
            lab.do(lab.objects.update, CONFIG_MAP, live)
        return patch(
            {"op": "add", "path": "/data/seen", "value": request["object"]["data"].get("others", "")}
        )

    maps = "/api/v1/namespaces/default/configmaps"
    hook.answers["/"] = race
    with configured(lab, hook.webhook("race")), lab.client() as client:
        merge = {"content-type": "application/merge-patch+json"}
        done = client.patch(f"{maps}/raced", json={"data": {"a": "2"}}, headers=merge)
        assert done.status_code == 200, done.text
        assert done.json()["data"] == {"a": "2", "others": "2", "seen": "2"}
        assert len(hook.requests) == 3
        # Who names a version is told instead.
        hook.requests.clear()
        done = client.put(f"{maps}/raced", json=done.json())
        assert (done.status_code, done.json()["reason"]) == (409, "Conflict")
        # A delete looks again, too.
        hook.requests.clear()
    rule = {**MAPS, "operations": ["DELETE"]}

    def race_delete(request: Object) -> Object:
        race({"object": {"data": {}}})
        return {}

    hook.answers["/"] = race_delete
    with configured(lab, hook.webhook("race", rules=[rule]), is_mutating=False), lab.client() as client:
        assert client.delete(f"{maps}/raced").status_code == 200
        assert len(hook.requests) == 3


def test_an_apply_that_creates_meets_another_that_did(lab: ApiLab, hook: Hook) -> None:
    def race(request: Object) -> Object:
        if request["operation"] == "CREATE":
            lab.do(lab.objects.create, CONFIG_MAP, mapped("twice", others="1"))
        return {}

    hook.answers["/"] = race
    with configured(lab, hook.webhook("race")):
        lab.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(mapped("twice", a="1")))
    assert stored(lab, "twice")["data"] == {"a": "1", "others": "1"}
    assert [one["operation"] for one in hook.requests] == ["CREATE", "UPDATE"]
    lab.kubectl("delete", "cm", "twice")


def test_selectors_of_namespaces_and_status(lab: ApiLab, hook: Hook) -> None:
    hook.answers["/"] = lambda request: {}
    lab.kubectl("create", "namespace", "inside")
    lab.kubectl("label", "namespace", "inside", "team=a")
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}
    selector = {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}
    webhook = hook.webhook("here", rules=[everything], namespaceSelector=selector, objectSelector={})
    with configured(lab, webhook):
        lab.kubectl("create", "configmap", "x", "-n", "inside")
        lab.kubectl("create", "configmap", "x")
        lab.kubectl("label", "namespace", "inside", "more=1")
        lab.kubectl(
            "create", "-f", "-", "-n", "inside", stdin=json.dumps({**isvc("s"), "metadata": {"name": "s"}})
        )
        status = {"status": {"url": "http://s"}}
        lab.kubectl(
            "patch",
            "isvc",
            "s",
            "-n",
            "inside",
            "--subresource=status",
            "--type=merge",
            "-p",
            json.dumps(status),
        )
        lab.kubectl("delete", "isvc", "s", "-n", "inside")
    told = [
        (one["operation"], one["resource"]["resource"], one.get("subResource", ""), one["namespace"])
        for one in hook.requests
    ]
    assert told == [
        ("CREATE", "configmaps", "", "inside"),
        ("UPDATE", "namespaces", "", "inside"),
        ("CREATE", "inferenceservices", "", "inside"),
        ("UPDATE", "inferenceservices", "status", "inside"),
        ("DELETE", "inferenceservices", "", "inside"),
    ]
    lab.kubectl("delete", "configmap", "x")
    lab.kubectl("delete", "namespace", "inside", "--wait=false")


def test_kubectl_knows_the_configurations_and_what_is_not_here_is_refused(lab: ApiLab, hook: Hook) -> None:
    hook.answers["/"] = lambda request: {"allowed": False}
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}
    webhook = hook.webhook("all", rules=[everything], objectSelector={})
    # A webhook that denies everything can still be changed and taken away.
    with configured(lab, webhook), configured(lab, webhook, is_mutating=False):
        shown = lab.kubectl("get", "mutatingwebhookconfigurations,validatingwebhookconfigurations")
        assert [line.split()[:2] for line in shown.splitlines() if line] == [
            ["NAME", "WEBHOOKS"],
            ["mutatingwebhookconfiguration.admissionregistration.k8s.io/test", "1"],
            ["NAME", "WEBHOOKS"],
            ["validatingwebhookconfiguration.admissionregistration.k8s.io/test", "1"],
        ]
        more = configuration(webhook, hook.webhook("more"))
        lab.kubectl("apply", "-f", "-", stdin=json.dumps(more))
        found = lab.do(lab.objects.get, MUTATING_WEBHOOK_CONFIGURATION, "", "test")
        assert found["metadata"]["generation"] == 2
        assert found["webhooks"][1]["timeoutSeconds"] == 10
        patched = {"webhooks": [{"name": "more.example.com", "timeoutSeconds": 3}]}
        lab.kubectl("patch", "mutatingwebhookconfiguration", "test", "-p", json.dumps(patched))
        found = lab.do(lab.objects.get, MUTATING_WEBHOOK_CONFIGURATION, "", "test")
        assert [one["timeoutSeconds"] for one in found["webhooks"]] == [10, 3]
        assert "denied" in lab.kubectl("create", "namespace", "never", code=1)
    explained = lab.kubectl("explain", "mutatingwebhookconfigurations.webhooks.clientConfig")
    assert "FIELD: clientConfig <WebhookClientConfig>" in explained
    assert "caBundle\t<string>" in explained

    service = {"service": {"name": "s", "namespace": "n"}}
    conditions = [{"name": "c", "expression": "true"}]
    refused = configuration(
        hook.webhook("service", clientConfig=service),
        hook.webhook("cel", matchConditions=conditions),
        {**hook.webhook("x"), "name": "short", "sideEffects": "Some", "timeoutSeconds": 31},
    )
    shown = lab.kubectl("create", "-f", "-", stdin=json.dumps(refused), code=1)
    assert "webhooks[0].clientConfig.service: Forbidden: there are no cluster services" in shown
    assert "webhooks[1].matchConditions: Forbidden: the local machine does not evaluate CEL" in shown
    assert "at least three segments" in shown
    assert 'webhooks[2].sideEffects: Unsupported value: "Some"' in shown
    assert "between 1 and 30 seconds" in shown


PLAIN = """
import ssl, tempfile
import kopf
from glowplug.operators.certificate import self_made, utc_now

@kopf.on.startup()
def configure(settings, **_):
    made = self_made(["127.0.0.1"], utc_now())
    with open("crt", "wb") as file:
        file.write(made.chain)
    with open("key", "wb") as file:
        file.write(made.key)
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1", host="127.0.0.1", certfile="crt", pkeyfile="key"
    )
    settings.admission.managed = "plain.kopf.dev"

@kopf.on.mutate("serving.kserve.io", "v1beta1", "inferenceservices", ignore_failures=True)
def change(spec, patch, warnings, **_):
    patch.spec["predictor"] = {"minReplicas": 1}
    warnings.append("kopf was here")

@kopf.on.validate("serving.kserve.io", "v1beta1", "inferenceservices")
def check(name, **_):
    if name == "bad":
        raise kopf.AdmissionError("a bad name", code=429)
"""


@contextmanager
def running(lab: ApiLab, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A controller, ended in order; its log must be free of surprises."""
    with (folder / "log").open("ab") as log:
        command = [sys.executable, *arguments]
        process = subprocess.Popen(command, cwd=folder, env=lab.environment(), stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(20)
    text = (folder / "log").read_text()
    assert "Traceback" not in text, text[-3000:]


def webhooks_of(lab: ApiLab, name: str) -> list[Object]:
    try:
        return lab.do(lab.objects.get, MUTATING_WEBHOOK_CONFIGURATION, "", name).get("webhooks") or []
    except NotFound:
        return []


def test_a_kopf_operator_manages_its_own_webhooks(lab: ApiLab, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    with running(lab, tmp_path, "-m", "kopf", "run", "plain.py", "-A", "--standalone"):
        wait_until(lambda: webhooks_of(lab, "plain.kopf.dev"), 30)
        checks = (
            "get",
            "validatingwebhookconfiguration",
            "plain.kopf.dev",
            "-o",
            "jsonpath={.webhooks[*].name}",
        )
        wait_until(lambda: lab.kubectl(*checks, code=None).startswith("check"))
        shown = lab.kubectl("create", "-f", "-", stdin=json.dumps(isvc("good")), code=None)
        assert "kopf was here" in shown
        found = lab.do(lab.objects.get, INFERENCE_SERVICE, "default", "good")
        assert found["spec"]["predictor"]["minReplicas"] == 1
        assert found["spec"]["predictor"]["model"]["modelFormat"] == {"name": "xgboost"}
        assert "a bad name" in lab.kubectl("create", "-f", "-", stdin=json.dumps(isvc("bad")), code=1)
    assert webhooks_of(lab, "plain.kopf.dev") == []
    lab.kubectl("delete", "isvc", "good")


OURS = """
import asyncio, contextlib, logging, os, pathlib, sys
import kopf
from glowplug.operators import operator
from glowplug.operators.api import connection
from glowplug.operators.webhook import WebhookConfig

class Controller:
    def saw(self, isvc, *, is_gone): pass
    async def run(self):
        await asyncio.Event().wait()
    async def close(self): pass

@contextlib.asynccontextmanager
async def part(api, identity):
    yield Controller()

async def admit(old, new, *, operation, dry_run, userinfo, warn):
    name = new["metadata"]["name"]
    if name == "denied":
        raise kopf.AdmissionError("not this one", code=403)
    if "predictor" in new["spec"]:
        new["spec"]["predictor"]["canaryTrafficPercent"] = int(sys.argv[1])
    new["metadata"].setdefault("labels", {})["was"] = operation + "-" + str(old is not None)
    return new

logging.basicConfig(level=logging.INFO)
operator.run(
    connection(pathlib.Path(os.environ["KUBECONFIG"]), None),
    part,
    operator.OperatorConfig("ours", webhook=WebhookConfig("ours", check_interval_s=0.1)),
    admit,
)
"""


def port_of(lab: ApiLab) -> str:
    found = webhooks_of(lab, "ours.glowplug.dev")
    return found[0]["clientConfig"]["url"] if found else ""


def test_replicas_share_one_certificate(lab: ApiLab) -> None:
    config = connection(lab.config.kubeconfig, None)

    async def all_at_once() -> list[Certificate]:
        async with Api(config, 10) as api:
            name = ("default", "hook-certificate", ("hook.default.svc",), utc_now())
            return await asyncio.gather(*(shared(api, *name) for _ in range(4)))

    async def later() -> Certificate:
        async with Api(config, 10) as api:
            then = utc_now() + timedelta(days=9.5 * 365)
            return await shared(api, "default", "hook-certificate", ("hook.default.svc",), then)

    first, *others = asyncio.run(all_at_once())
    assert others == [first] * 3
    # It is made anew before it ends.
    assert asyncio.run(later()) != first
    lab.kubectl("delete", "secret", "hook-certificate")


async def test_a_mounted_certificate_is_followed(lab: ApiLab, tmp_path: Path) -> None:
    async def admit(old: Object | None, new: Object, **more: Any) -> Object | None:
        new["metadata"]["labels"] = {"seen": "yes"}
        return new

    def mount() -> str:
        made = self_made(("127.0.0.1",), utc_now())
        # As the kubelet does it: all files at once.
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        (folder / "tls.crt").write_bytes(made.chain)
        (folder / "tls.key").write_bytes(made.key)
        (tmp_path / "next").symlink_to(folder)
        (tmp_path / "next").rename(tmp_path / "mounted")
        return base64.b64encode(made.authority).decode()

    def bundle() -> str:
        found = webhooks_of(lab, "mounted.glowplug.dev")
        return found[0]["clientConfig"]["caBundle"] if found else ""

    async def seen() -> bool:
        name = f"m{uuid.uuid4().hex[:8]}"
        await asyncio.to_thread(lab.kubectl, "create", "-f", "-", stdin=json.dumps(isvc(name)))
        found = lab.do(lab.objects.get, INFERENCE_SERVICE, "default", name)
        await asyncio.to_thread(lab.kubectl, "delete", "isvc", name)
        return found["metadata"].get("labels") == {"seen": "yes"}

    first = mount()
    config = WebhookConfig("mounted", certificate_dir=tmp_path / "mounted", check_interval_s=0.05)
    async with Webhook(connection(lab.config.kubeconfig, None), config, admit, (), 10):
        await asyncio.to_thread(wait_until, lambda: bundle() == first)
        assert await seen()
        second = mount()
        await asyncio.to_thread(wait_until, lambda: bundle() == second)
        assert await seen()
    assert bundle() == ""


async def test_a_port_that_is_somebody_elses_by_now_is_no_replica(lab: ApiLab) -> None:
    async def admit(old: Object | None, new: Object, **more: Any) -> Object | None:
        return None

    stranger = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = stranger.sockets[0].getsockname()[1]
    config = WebhookConfig("taken", check_interval_s=0.05)
    left = webhook_configuration.configuration(
        config, port, self_made(("127.0.0.1",), utc_now()).authority, ()
    )
    await asyncio.to_thread(lab.kubectl, "create", "-f", "-", stdin=json.dumps(left))

    def is_taken_over() -> bool:
        return f":{port}/" not in str(webhooks_of(lab, "taken.glowplug.dev"))

    async with stranger, Webhook(connection(lab.config.kubeconfig, None), config, admit, (), 10):
        await asyncio.to_thread(wait_until, is_taken_over, 10)
    assert webhooks_of(lab, "taken.glowplug.dev") == []


def test_our_operators_webhook_and_its_heirs(lab: ApiLab, tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(OURS)

    def percent(name: str) -> Any:
        lab.kubectl("create", "-f", "-", stdin=json.dumps(isvc(name)))
        found = lab.do(lab.objects.get, INFERENCE_SERVICE, "default", name)
        lab.kubectl("delete", "isvc", name)
        return found["spec"]["predictor"].get("canaryTrafficPercent")

    with running(lab, tmp_path, "ours.py", "10") as first:
        one = wait_until(lambda: port_of(lab), 30)
        assert percent("a") == 10
        shown = lab.kubectl("create", "-f", "-", stdin=json.dumps(isvc("denied")), code=1)
        assert 'webhook "ours.glowplug.dev" denied the request: not this one' in shown
        with running(lab, tmp_path, "ours.py", "20"):
            # The second leaves the configuration to the first while that answers, and takes it over when it dies.
            wait_until(lambda: "called at another replica" in (tmp_path / "log").read_text(), 30)
            assert percent("b") == 10
            first.kill()
            first.wait(20)
            wait_until(lambda: port_of(lab) not in (one, ""), 20)
            assert percent("c") == 20
            lab.kubectl("create", "-f", "-", stdin=json.dumps(isvc("kept")))
            lab.kubectl("label", "isvc", "kept", "x=y")
            found = lab.do(lab.objects.get, INFERENCE_SERVICE, "default", "kept")
            assert found["metadata"]["labels"] == {"x": "y", "was": "UPDATE-True"}
            # Somebody takes the configuration away: it comes back.
            lab.kubectl("delete", "mutatingwebhookconfiguration", "ours.glowplug.dev")
            wait_until(lambda: port_of(lab), 20)
    # Who stops in order leaves nothing.
    assert port_of(lab) == ""
    assert percent("d") is None
    lab.kubectl("delete", "isvc", "kept")
