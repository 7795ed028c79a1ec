"""The API over HTTPS: verbs, errors, watches, logs, limits; a real server and a plain HTTP client."""

from __future__ import annotations

import json
import ssl
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from local.apiserver_fixture import ISVC, ApiLab, api_server, config_map, isvc, lines_of, wait_until

from glowplug.apiserver.watch import Window
from glowplug.spec.kinds import CONFIG_MAP, INFERENCE_SERVICE, POD

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = {"content-type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiLab]:
    with api_server(tmp_path_factory.mktemp("http"), bookmark_interval_s=0.2) as lab:
        yield lab


@pytest.fixture
def http(lab: ApiLab) -> Iterator[httpx.Client]:
    with lab.client() as client:
        yield client


def status(response: httpx.Response, code: int, reason: str) -> dict[str, Any]:
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["kind"], found["reason"]) == (code, "Status", reason), found
    return found


def test_token_is_required(lab: ApiLab) -> None:
    with lab.client() as client:
        for headers in ({"authorization": ""}, {"authorization": "Bearer wrong"}):
            status(client.get("/api", headers=headers), 401, "Unauthorized")
        for path in ("/healthz", "/livez", "/readyz", "/version"):
            assert client.get(path, headers={"authorization": ""}).status_code == 200


def test_certificate_is_checked_strictly(lab: ApiLab) -> None:
    context = ssl.create_default_context(cafile=str(lab.server.pki.ca_cert))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    port = lab.server.port
    for host in ("127.0.0.1", "localhost"):
        assert httpx.get(f"https://{host}:{port}/healthz", verify=context).text == "ok"


def test_life_of_an_object(http: httpx.Client) -> None:
    made = http.post(ISVC, json=isvc("life")).json()
    assert made["metadata"]["generation"] == 1
    assert http.get(f"{ISVC}/life").json() == made

    made["metadata"]["labels"] = {"a": "b"}
    made["status"] = {"url": "http://mine"}
    updated = http.put(f"{ISVC}/life", json=made).json()
    assert (updated["metadata"]["generation"], updated.get("status")) == (1, None)
    updated["status"] = {"url": "http://theirs"}
    updated["spec"] = {}
    after = http.put(f"{ISVC}/life/status", json=updated).json()
    assert (after["status"], after["spec"]) == ({"url": "http://theirs"}, made["spec"])
    patched = http.patch(
        f"{ISVC}/life", json={"spec": {"predictor": {"minReplicas": 2}}}, headers=MERGE
    ).json()
    assert (patched["metadata"]["generation"], patched["status"]) == (2, after["status"])
    patched = http.patch(
        f"{ISVC}/life/status", json={"status": {"url": "x"}, "spec": None}, headers=MERGE
    ).json()
    assert (patched["metadata"]["generation"], patched["status"]["url"]) == (2, "x")

    gone = http.delete(f"{ISVC}/life").json()
    assert gone["status"] == "Success"
    assert gone["details"] == {
        "name": "life",
        "group": "serving.kserve.io",
        "kind": "inferenceservices",
        "uid": made["metadata"]["uid"],
    }
    found = status(http.get(f"{ISVC}/life"), 404, "NotFound")
    assert found["message"] == 'inferenceservices.serving.kserve.io "life" not found'
    assert found["details"]["name"] == "life"


def test_optimistic_lock(http: httpx.Client) -> None:
    old = http.post(CONFIG_MAPS, json=config_map("lock")).json()
    http.patch(f"{CONFIG_MAPS}/lock", json={"data": {"a": "1"}}, headers=MERGE)
    found = status(http.put(f"{CONFIG_MAPS}/lock", json=old), 409, "Conflict")
    assert found["message"] == (
        'Operation cannot be fulfilled on configmaps "lock": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    stale = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "data": {"a": "2"}}
    status(http.patch(f"{CONFIG_MAPS}/lock", json=stale, headers=MERGE), 409, "Conflict")
    del old["metadata"]["resourceVersion"]
    assert http.put(f"{CONFIG_MAPS}/lock", json=old).status_code == 200
    made = http.post(ISVC, json=isvc("lock")).json()
    del made["metadata"]["resourceVersion"]
    found = status(http.put(f"{ISVC}/lock", json=made), 422, "Invalid")
    assert found["details"]["causes"][0]["field"] == "metadata.resourceVersion"


def test_no_patch_is_lost_between_many_clients(http: httpx.Client) -> None:
    http.post(CONFIG_MAPS, json=config_map("shared"))

    def write(number: int) -> int:
        body = {"data": {f"k{number}": "v"}}
        return http.patch(f"{CONFIG_MAPS}/shared", json=body, headers=MERGE).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(40))) == {200}
    assert len(http.get(f"{CONFIG_MAPS}/shared").json()["data"]) == 40


def test_patch_forms(http: httpx.Client) -> None:
    http.post(CONFIG_MAPS, json=config_map("forms", a="1", b="2"))
    operations = [{"op": "replace", "path": "/data/a", "value": "9"}, {"op": "remove", "path": "/data/b"}]
    headers = {"content-type": "application/json-patch+json"}
    assert http.patch(f"{CONFIG_MAPS}/forms", json=operations, headers=headers).json()["data"] == {"a": "9"}
    headers = {"content-type": "application/strategic-merge-patch+json"}
    body: Any = {"data": {"c": "3"}}
    assert http.patch(f"{CONFIG_MAPS}/forms", json=body, headers=headers).json()["data"] == {
        "a": "9",
        "c": "3",
    }
    http.post(ISVC, json=isvc("forms"))
    found = status(http.patch(f"{ISVC}/forms", json=body, headers=headers), 415, "UnsupportedMediaType")
    assert "application/merge-patch+json" in found["message"]
    for body in (
        {"metadata": {"name": "other"}},
        {"metadata": None},
        {"kind": "Secret"},
        {"metadata": {"uid": "u"}},
    ):
        response = http.patch(f"{CONFIG_MAPS}/forms", json=body, headers=MERGE)
        assert 400 <= response.status_code < 500, response.text
    bad = http.patch(
        f"{CONFIG_MAPS}/forms", content=b"[{", headers={"content-type": "application/json-patch+json"}
    )
    assert "JSON patch cannot be read" in status(bad, 400, "BadRequest")["message"]


def test_server_side_apply(http: httpx.Client) -> None:
    headers = {"content-type": "application/apply-patch+yaml"}
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ssa}\ndata: {a: '1'}\n"

    def apply(text: str, **query: str) -> httpx.Response:
        return http.patch(f"{CONFIG_MAPS}/ssa", content=text, headers=headers, params=query)

    assert apply(text, fieldManager="one").status_code == 201
    assert apply(text, fieldManager="one").status_code == 200
    found = status(apply(text.replace("'1'", "'2'"), fieldManager="two"), 409, "Conflict")
    assert found["details"]["causes"][0]["reason"] == "FieldManagerConflict"
    forced = apply(text.replace("'1'", "'2'"), fieldManager="two", force="true").json()
    assert forced["data"] == {"a": "2"}
    assert "fieldManager" in status(apply(text), 422, "Invalid")["message"]


def test_dry_run_writes_nothing(lab: ApiLab, http: httpx.Client) -> None:
    before = lab.objects.revision
    assert http.post(CONFIG_MAPS, params={"dryRun": "All"}, json=config_map("dry")).status_code == 201
    assert http.get(f"{CONFIG_MAPS}/dry").status_code == 404
    assert lab.objects.revision == before
    http.post(CONFIG_MAPS, json=config_map("dry"))
    patched = http.patch(
        f"{CONFIG_MAPS}/dry", params={"dryRun": "All"}, json={"data": {"a": "b"}}, headers=MERGE
    )
    assert patched.json()["data"] == {"a": "b"}
    assert http.request("DELETE", f"{CONFIG_MAPS}/dry", json={"dryRun": ["All"]}).status_code == 200
    assert http.get(f"{CONFIG_MAPS}/dry").json()["data"] == {}
    status(http.post(CONFIG_MAPS, params={"dryRun": "Some"}, json=config_map("x")), 400, "BadRequest")


def test_field_validation(http: httpx.Client) -> None:
    wish = {**isvc("fields"), "speck": 1}
    strict = http.post(ISVC, params={"fieldValidation": "Strict"}, json=wish)
    assert 'strict decoding error: unknown field "speck"' in status(strict, 400, "BadRequest")["message"]
    warned = http.post(ISVC, json=wish)
    assert warned.status_code == 201
    assert any('unknown field \\"speck\\"' in one for one in warned.headers.get_list("warning"))
    assert "speck" not in warned.json()
    body = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"dup"},"data":{"a":"1","a":"2"}}'
    headers = {"content-type": "application/json"}
    strict = http.post(CONFIG_MAPS, params={"fieldValidation": "Strict"}, content=body, headers=headers)
    assert 'duplicate field "data.a"' in status(strict, 400, "BadRequest")["message"]


def test_all_problems_of_an_object_at_once(http: httpx.Client) -> None:
    wish = isvc("Bad_Name")
    wish["spec"]["predictor"].update(minReplicas=-1, containerConcurrency=-2)
    found = status(http.post(ISVC, json=wish), 422, "Invalid")
    fields = {cause["field"] for cause in found["details"]["causes"]}
    assert {"metadata.name", "spec.predictor.minReplicas", "spec.predictor.containerConcurrency"} <= fields


@pytest.mark.parametrize(
    ("body", "content_type", "code", "text"),
    [
        (b'{"apiVersion": "v1",', "application/json", 400, "line 1"),
        (b"a: b: c", "application/yaml", 400, "line 1, column"),
        (b"[1, 2]", "application/json", 400, "not an object"),
        (b'{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}', "application/json", 400, "Secret"),
        (b"\xff\xfe", "application/json", 400, ""),
        (b"[" * 5000, "application/json", 400, ""),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, "application/json", 400, ""),
        (b"x=1", "application/x-www-form-urlencoded", 415, "form-urlencoded"),
        (b'{"apiVersion":"v1","kind":"ConfigMap","metadata":[]}', "application/json", 400, "metadata"),
        (
            b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":7}}',
            "application/json",
            400,
            "metadata.name",
        ),
        (b'{"apiVersion":"v1","kind":"ConfigMap"}', "application/json", 422, "name"),
    ],
)
def test_broken_bodies(http: httpx.Client, body: bytes, content_type: str, code: int, text: str) -> None:
    response = http.post(CONFIG_MAPS, content=body, headers={"content-type": content_type})
    assert response.status_code == code, response.text
    assert text in response.json()["message"]


def test_body_limit(http: httpx.Client) -> None:
    found = status(
        http.post(CONFIG_MAPS, json=config_map("big", a="x" * (3 * 2**20 + 1))), 413, "RequestEntityTooLarge"
    )
    assert "limit is 3145728 bytes" in found["message"]


def test_what_is_not_served_is_said(http: httpx.Client) -> None:
    found = status(http.get("/apis/apps/v1/deployments"), 404, "NotFound")
    assert found["message"].startswith("the server could not find the requested resource")
    assert "serving.knative.dev/v1" in found["message"]
    status(http.get("/nowhere"), 404, "NotFound")
    status(http.get(CONFIG_MAPS, headers={"accept": "text/html"}), 406, "NotAcceptable")
    status(http.post("/api/v1/configmaps", json=config_map("x")), 405, "MethodNotAllowed")
    status(http.put(CONFIG_MAPS, json=config_map("x")), 405, "MethodNotAllowed")
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert http.get(definitions).json()["items"]
    assert "read-only" in status(http.post(definitions, json={}), 405, "MethodNotAllowed")["message"]
    status(http.get("/api/v1/pods", params={"fieldSelector": "spec.color=red"}), 400, "BadRequest")
    status(http.get("/api/v1/pods", params={"labelSelector": "a in b"}), 400, "BadRequest")
    status(
        http.post("/api/v1/namespaces/nowhere/configmaps", json=config_map("x", "nowhere")), 404, "NotFound"
    )
    wrong = http.post(CONFIG_MAPS, json=config_map("x", "other"))
    assert "namespace of the object (other)" in status(wrong, 400, "BadRequest")["message"]


def test_preconditions_and_collections(http: httpx.Client) -> None:
    for number in range(4):
        http.post(
            CONFIG_MAPS,
            json={**config_map(f"many{number}"), "metadata": {"name": f"many{number}", "labels": {"m": "1"}}},
        )
    refused = http.request("DELETE", f"{CONFIG_MAPS}/many0", json={"preconditions": {"uid": "other"}})
    assert "UID in precondition: other" in status(refused, 409, "Conflict")["message"]
    found = http.get(CONFIG_MAPS, params={"labelSelector": "m=1", "limit": "3"}).json()
    assert len(found["items"]) == 3
    assert found["metadata"]["continue"]
    removed = http.request("DELETE", CONFIG_MAPS, params={"labelSelector": "m in (1,2)"}).json()
    assert len(removed["items"]) == 4
    assert http.get(CONFIG_MAPS, params={"labelSelector": "m"}).json()["items"] == []


def test_paged_list_is_consistent(http: httpx.Client) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pages"}}
    http.post("/api/v1/namespaces", json=namespace)
    path = "/api/v1/namespaces/pages/configmaps"
    for number in range(5):
        http.post(path, json=config_map(f"c{number}", "pages"))
    first = http.get(path, params={"limit": "2"}).json()
    assert first["metadata"]["remainingItemCount"] == 3
    http.delete(f"{path}/c3")
    rest = http.get(path, params={"continue": first["metadata"]["continue"]}).json()
    assert [one["metadata"]["name"] for one in rest["items"]] == ["c2", "c3", "c4"]
    status(http.get(path, params={"continue": "garbage"}), 400, "BadRequest")


def watch(client: httpx.Client, path: str, **query: str) -> Any:
    return client.stream("GET", path, params={"watch": "1", **query})


def test_watch_tells_everything_once(http: httpx.Client, lab: ApiLab) -> None:
    http.post(CONFIG_MAPS, json=config_map("w0"))
    listed = http.get(CONFIG_MAPS).json()
    with (
        lab.client() as other,
        watch(other, CONFIG_MAPS, resourceVersion=listed["metadata"]["resourceVersion"]) as events,
    ):
        lines = lines_of(events)
        http.post(CONFIG_MAPS, json=config_map("w1"))
        http.patch(f"{CONFIG_MAPS}/w1", json={"data": {"a": "b"}}, headers=MERGE)
        http.delete(f"{CONFIG_MAPS}/w1")
        seen = [next(lines) for _ in range(3)]
    assert [(one["type"], one["object"]["metadata"]["name"]) for one in seen] == [
        ("ADDED", "w1"),
        ("MODIFIED", "w1"),
        ("DELETED", "w1"),
    ]
    revisions = [int(one["object"]["metadata"]["resourceVersion"]) for one in seen]
    assert revisions == sorted(set(revisions))


def test_watch_with_a_selector_sees_objects_come_and_go(http: httpx.Client, lab: ApiLab) -> None:
    with lab.client() as other, watch(other, CONFIG_MAPS, labelSelector="color=red") as events:
        lines = lines_of(events)
        http.post(CONFIG_MAPS, json=config_map("sel"))
        http.patch(f"{CONFIG_MAPS}/sel", json={"metadata": {"labels": {"color": "red"}}}, headers=MERGE)
        http.patch(f"{CONFIG_MAPS}/sel", json={"data": {"a": "b"}}, headers=MERGE)
        http.patch(f"{CONFIG_MAPS}/sel", json={"metadata": {"labels": {"color": "blue"}}}, headers=MERGE)
        http.delete(f"{CONFIG_MAPS}/sel")
        seen = [next(lines) for _ in range(3)]
    assert [one["type"] for one in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert seen[2]["object"]["metadata"]["labels"] == {"color": "red"}


def test_watch_begins_with_what_exists_and_marks_its_end(http: httpx.Client, lab: ApiLab) -> None:
    http.post(CONFIG_MAPS, json=config_map("initial"))
    query = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    with (
        lab.client() as other,
        watch(other, CONFIG_MAPS, fieldSelector="metadata.name=initial", **query) as events,
    ):
        lines = lines_of(events)
        added, end = next(lines), next(lines)
        assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "initial")
        assert end["type"] == "BOOKMARK"
        assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        http.post(CONFIG_MAPS, json=config_map("elsewhere"))
        quiet = next(lines)
        assert quiet["type"] == "BOOKMARK"
        assert int(quiet["object"]["metadata"]["resourceVersion"]) >= int(
            end["object"]["metadata"]["resourceVersion"]
        )


def test_watch_ends_at_its_timeout(lab: ApiLab) -> None:
    with (
        lab.client() as other,
        watch(other, CONFIG_MAPS, resourceVersion=str(lab.objects.revision), timeoutSeconds="1") as events,
    ):
        assert list(lines_of(events)) == []


def test_watch_from_a_compacted_revision_is_gone(lab: ApiLab, http: httpx.Client) -> None:
    for number in range(2):
        http.post(CONFIG_MAPS, json=config_map(f"old{number}"))
    lab.do(lab.state.hub.compact, lab.objects.revision)
    with watch(http, CONFIG_MAPS, resourceVersion="1") as events:
        (line,) = lines_of(events)
    assert (line["type"], line["object"]["code"], line["object"]["reason"]) == ("ERROR", 410, "Expired")
    status(http.get(CONFIG_MAPS, params={"resourceVersion": "999999"}), 410, "Expired")


def test_clients_that_go_free_their_place(lab: ApiLab) -> None:
    for _ in range(3):
        with lab.client() as other:
            streams = [watch(other, CONFIG_MAPS) for _ in range(4)]
            for stream in streams:
                stream.__enter__()
            wait_until(lambda: lab.state.hub.watcher_count >= 4)
            other.close()
        wait_until(lambda: lab.state.hub.watcher_count == 0)


def test_client_that_never_reads_is_let_go(tmp_path: Path) -> None:
    settings = {"unread_timeout_s": 0.3, "window": Window(events=16, size_bytes=200_000)}
    with api_server(tmp_path, **settings) as lab, lab.client() as reader:
        with watch(reader, CONFIG_MAPS):
            wait_until(lambda: lab.state.hub.watcher_count == 1)

            def flood() -> None:
                for number in range(400):
                    obj = {"metadata": {"name": f"f{number % 5}", "namespace": "default"}}
                    obj["data"] = {"a": f"{number}" * 20_000}  # type: ignore[assignment]
                    try:
                        lab.objects.update(CONFIG_MAP, obj)
                    except Exception:
                        lab.objects.create(CONFIG_MAP, obj)

            for _ in range(3):
                lab.do(flood)
                time.sleep(0.05)
            wait_until(lambda: lab.state.hub.watcher_count == 0)
            size = lab.state.hub._logs["configmaps"]._size
            assert size < 1_000_000
        with lab.client() as other:
            assert other.get(CONFIG_MAPS).status_code == 200


def test_logs(lab: ApiLab, http: httpx.Client) -> None:
    containers = [{"name": "kserve-container"}, {"name": "transformer-container"}]
    pod = {"metadata": {"name": "logs", "namespace": "default"}, "spec": {"containers": containers}}
    lab.do(lab.objects.create, POD, pod)
    path = "/api/v1/namespaces/default/pods/logs/log"
    log = lab.logs.log("default", "logs", "kserve-container")
    log.lines += [b"one\n", b"two\n", b"three\n"]
    assert "choose one of: [kserve-container transformer-container]" in http.get(path).json()["message"]
    query = {"container": "kserve-container"}
    assert http.get(path, params=query).text == "one\ntwo\nthree\n"
    assert http.get(path, params={**query, "tailLines": "1"}).text == "three\n"
    assert http.get(path, params={**query, "limitBytes": "6"}).text == "one\ntw"
    http.get(path, params={**query, "previous": "true", "timestamps": "true", "sinceSeconds": "60"})
    assert lab.logs.asked[-1] == {"since_seconds": 60, "previous": True, "timestamps": True}
    status(http.get(path, params={"container": "other"}), 400, "BadRequest")
    status(http.get(path, params={**query, "sinceTime": "yesterday"}), 400, "BadRequest")
    status(http.get(path.replace("pods/logs", "pods/none")), 404, "NotFound")
    with http.stream("GET", path, params={**query, "follow": "true"}) as stream:
        chunks = stream.iter_text()
        assert "".join(next(chunks) for _ in range(3)).startswith("one\n")
        lab.do(log.lines.append, b"four\n")
        assert next(chunks) == "four\n"
    wait_until(lambda: log.readers == 0)


def test_thousand_inference_services_are_listed_quickly(tmp_path: Path) -> None:
    with api_server(tmp_path) as lab, lab.client() as http:

        def fill() -> None:
            for number in range(1000):
                obj = lab.objects.create(INFERENCE_SERVICE, isvc(f"m{number:04}"))
                obj["status"] = {
                    "url": f"http://127.0.0.1:8080/serving/default/m{number:04}",
                    "conditions": [
                        {"type": one, "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}
                        for one in ("IngressReady", "PredictorReady", "Ready", "RoutesReady")
                    ],
                }
                lab.objects.update_status(INFERENCE_SERVICE, obj)

        lab.do(fill)
        http.get("/healthz")
        times = []
        for _ in range(5):
            start = time.perf_counter()
            response = http.get(ISVC)
            times.append(time.perf_counter() - start)
        assert len(response.json()["items"]) == 1000
        assert statistics.median(times) < 0.3, times


def test_watch_latency(lab: ApiLab) -> None:
    """From the moment that a write is asked for to its arrival at a watcher, both over HTTPS."""
    sent: dict[str, float] = {}
    arrived: dict[str, float] = {}
    is_watching, count = threading.Event(), 50

    def follow() -> None:
        with lab.client() as client, watch(client, CONFIG_MAPS, labelSelector="latency=1") as events:
            is_watching.set()
            for event in lines_of(events):
                arrived[event["object"]["metadata"]["name"]] = time.perf_counter()
                if len(arrived) == count:
                    return

    thread = threading.Thread(target=follow)
    thread.start()
    assert is_watching.wait(5)
    with lab.client() as client:
        for number in range(count):
            name = f"lat{number}"
            obj = config_map(name)
            obj["metadata"]["labels"] = {"latency": "1"}
            sent[name] = time.perf_counter()
            client.post(CONFIG_MAPS, json=obj)
    thread.join(10)
    delays = sorted(arrived[name] - sent[name] for name in sent)
    assert len(delays) == count
    assert delays[count // 2] < 0.05, delays


def test_answers_are_json_whatever_the_accept_of_a_list(http: httpx.Client) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    table = http.get("/api/v1/namespaces", headers={"accept": accept}).json()
    assert [column["name"] for column in table["columnDefinitions"]][:2] == ["Name", "Status"]
    accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    partial = http.get("/api/v1/namespaces", headers={"accept": accept}).json()
    assert "spec" not in partial["items"][0]
    assert http.head("/api/v1/namespaces").content == b""
    assert json.loads(http.get("/openapi/v2").text)["swagger"] == "2.0"
