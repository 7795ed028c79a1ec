"""The real kubectl against the API server, verb by verb."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from local.apiserver_fixture import ApiLab, api_server, config_map, isvc, wait_until

from glowplug.errors import NotFound
from glowplug.spec.kinds import CONFIG_MAP, INFERENCE_SERVICE, POD, REVISION, Kind


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiLab]:
    with api_server(tmp_path_factory.mktemp("kubectl")) as lab:
        yield lab


def manifest(obj: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(obj)
    return text


def set_ready(lab: ApiLab, name: str) -> None:
    """What the controllers will do: write the status of an InferenceService."""

    def write() -> None:
        obj = lab.objects.get(INFERENCE_SERVICE, "default", name)
        obj["status"] = {
            "url": f"http://127.0.0.1:8080/serving/default/{name}",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}],
        }
        lab.objects.update_status(INFERENCE_SERVICE, obj)

    lab.do(write)


def exists(lab: ApiLab, kind: Kind, name: str) -> bool:
    try:
        lab.do(lab.objects.get, kind, "default", name)
    except NotFound:
        return False
    return True


def test_apply_changes_and_leaves_alone(lab: ApiLab) -> None:
    assert "created" in lab.kubectl("apply", "-f", "-", stdin=manifest(isvc("applied")))
    assert "unchanged" in lab.kubectl("apply", "-f", "-", stdin=manifest(isvc("applied")))
    wish = isvc("applied")
    wish["spec"]["predictor"]["minReplicas"] = 2
    assert "configured" in lab.kubectl("apply", "-f", "-", stdin=manifest(wish))
    assert "configured" in lab.kubectl("apply", "-f", "-", stdin=manifest(isvc("applied")))
    live = json.loads(lab.kubectl("get", "isvc", "applied", "-o", "json"))
    assert "minReplicas" not in live["spec"]["predictor"], "what the file no longer says is removed"
    assert live["metadata"]["generation"] == 3


def test_apply_of_core_kinds(lab: ApiLab) -> None:
    lab.kubectl("apply", "-f", "-", stdin=manifest(config_map("core", a="1", b="2")))
    lab.kubectl("apply", "-f", "-", stdin=manifest(config_map("core", a="3")))
    assert lab.kubectl("get", "cm", "core", "-o", "jsonpath={.data}") == '{"a":"3"}'


def test_server_side_apply(lab: ApiLab) -> None:
    text = manifest(config_map("ssa", a="1"))
    assert "serverside-applied" in lab.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    assert "serverside-applied" in lab.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    other = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    conflict = lab.kubectl(*other, stdin=manifest(config_map("ssa", a="2")), code=1)
    assert 'conflict with "kubectl"' in conflict
    lab.kubectl(*other, "--force-conflicts", stdin=manifest(config_map("ssa", a="2")))
    assert lab.kubectl("get", "cm", "ssa", "-o", "jsonpath={.data.a}") == "2"


def test_refused_objects_say_why(lab: ApiLab) -> None:
    wish = isvc("refused")
    wish["spec"]["predictor"]["minReplica"] = 1
    assert 'unknown field "spec.predictor.minReplica"' in lab.kubectl(
        "apply", "-f", "-", stdin=manifest(wish), code=1
    )
    wish = isvc("refused")
    wish["spec"]["predictor"]["minReplicas"] = -1
    assert "spec.predictor.minReplicas" in lab.kubectl("apply", "-f", "-", stdin=manifest(wish), code=1)
    wish = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}
    assert 'no matches for kind "Deployment"' in lab.kubectl("apply", "-f", "-", stdin=manifest(wish), code=1)
    assert 'inferenceservices.serving.kserve.io "refused" not found' in lab.kubectl(
        "get", "isvc", "refused", code=1
    )


def test_get_prints_the_columns_that_users_know(lab: ApiLab) -> None:
    lab.kubectl("apply", "-f", "-", stdin=manifest(isvc("table", labels={"team": "red"})))
    set_ready(lab, "table")
    header, row = lab.kubectl("get", "isvc", "table").splitlines()
    assert header.split() == [
        "NAME",
        "URL",
        "READY",
        "PREV",
        "LATEST",
        "PREVROLLEDOUTREVISION",
        "LATESTREADYREVISION",
        "AGE",
    ]
    assert row.split()[:3] == ["table", "http://127.0.0.1:8080/serving/default/table", "True"]
    assert lab.kubectl("get", "isvc", "-l", "team in (red,blue)", "-o", "name").split() == [
        "inferenceservice.serving.kserve.io/table"
    ]
    assert "table" not in lab.kubectl("get", "isvc", "-l", "!team", "-o", "name")
    fields = ("--field-selector", "metadata.name=table")
    assert lab.kubectl("get", "isvc", *fields, "-o", "name") == "inferenceservice.serving.kserve.io/table\n"
    assert "table" in lab.kubectl("get", "all", "-A")
    assert yaml.safe_load(lab.kubectl("get", "isvc", "table", "-o", "yaml"))["spec"]["predictor"]["model"]
    by_time = lab.kubectl("get", "isvc", "--sort-by=.metadata.creationTimestamp", "-o", "name")
    assert "table" in by_time
    assert lab.kubectl("get", "isvc", "--chunk-size=1", "-o", "name").count("/") == by_time.count("/")


def test_get_watch(lab: ApiLab) -> None:
    with lab.following("get", "cm", "-w", "--watch-only", "-l", "kubectl=watch", "-o", "name") as process:
        assert process.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")))
        reader.start()
        wait_until(lambda: lab.state.hub.watcher_count > 0)
        for number in range(3):
            wish = config_map(f"watched{number}")
            wish["metadata"]["labels"] = {"kubectl": "watch"}
            lab.do(lab.objects.create, CONFIG_MAP, wish)
        wait_until(lambda: len(lines) == 3)
        process.kill()
        reader.join(5)
    assert lines == [f"configmap/watched{number}\n" for number in range(3)]
    wait_until(lambda: lab.state.hub.watcher_count == 0)


def test_get_watch_prints_table_rows(lab: ApiLab) -> None:
    lab.do(lab.objects.create, INFERENCE_SERVICE, isvc("rows"))
    with lab.following("get", "isvc", "rows", "-w") as process:
        assert process.stdout is not None
        header, first = process.stdout.readline(), process.stdout.readline()
        assert (header.split()[0], first.split()[0]) == ("NAME", "rows")
        wait_until(lambda: lab.state.hub.watcher_count > 0)
        set_ready(lab, "rows")
        assert process.stdout.readline().split()[2] == "True"


def test_describe_shows_events(lab: ApiLab) -> None:
    obj = lab.do(lab.objects.create, INFERENCE_SERVICE, isvc("described"))
    for _ in range(2):
        lab.do(lab.state.recorder, obj, "Warning", "InternalError", "the runtime is not there")
    text = lab.kubectl("describe", "isvc", "described")
    assert "Storage Uri:" in text
    assert "InternalError" in text
    assert "(x2 over" in text
    assert "the runtime is not there" in lab.kubectl("events", "--for", "inferenceservice/described")
    listed = lab.kubectl("get", "events", "--field-selector", "type=Warning,involvedObject.name=described")
    assert "InternalError" in listed


def test_logs_follow(lab: ApiLab) -> None:
    spec = {"containers": [{"name": "kserve-container", "image": "x"}]}
    lab.do(lab.objects.create, POD, {"metadata": {"name": "talker", "namespace": "default"}, "spec": spec})
    log = lab.logs.log("default", "talker", "kserve-container")
    log.lines += [b"first\n", b"second\n"]
    assert lab.kubectl("logs", "talker") == "first\nsecond\n"
    assert lab.kubectl("logs", "talker", "--tail=1", "-c", "kserve-container") == "second\n"
    with lab.following("logs", "-f", "talker") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["first\n", "second\n"]
        lab.do(log.lines.append, b"third\n")
        assert process.stdout.readline() == "third\n"
        log.is_over = True
        assert process.wait(10) == 0
    assert "container other is not valid" in lab.kubectl("logs", "talker", "-c", "other", code=1)


def test_patch_label_annotate(lab: ApiLab) -> None:
    lab.kubectl("apply", "-f", "-", stdin=manifest(isvc("patched")))
    lab.kubectl("patch", "isvc", "patched", "--type=merge", "-p", '{"spec":{"predictor":{"maxReplicas":3}}}')
    operations = '[{"op":"replace","path":"/spec/predictor/maxReplicas","value":4}]'
    lab.kubectl("patch", "isvc", "patched", "--type=json", "-p", operations)
    assert lab.kubectl("get", "isvc", "patched", "-o", "jsonpath={.spec.predictor.maxReplicas}") == "4"
    lab.kubectl(
        "patch",
        "isvc",
        "patched",
        "--subresource=status",
        "--type=merge",
        "-p",
        '{"status":{"url":"http://x"}}',
    )
    assert lab.kubectl("get", "isvc", "patched", "-o", "jsonpath={.status.url}") == "http://x"
    lab.kubectl("label", "isvc", "patched", "team=blue")
    assert "already has a value" in lab.kubectl("label", "isvc", "patched", "team=red", code=1)
    lab.kubectl("annotate", "isvc", "patched", "note=hello world")
    lab.kubectl("label", "isvc", "patched", "team-")
    meta = json.loads(lab.kubectl("get", "isvc", "patched", "-o", "json"))["metadata"]
    assert meta["annotations"]["note"] == "hello world"
    assert "team" not in meta.get("labels", {})


def test_edit(lab: ApiLab, tmp_path: Path) -> None:
    lab.kubectl("apply", "-f", "-", stdin=manifest(isvc("edited")))
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's|pvc://models/flights|pvc://models/trains|' \"$1\"\n")
    editor.chmod(0o755)
    assert "edited" in lab.kubectl("edit", "isvc", "edited", EDITOR=str(editor))
    uri = lab.kubectl("get", "isvc", "edited", "-o", "jsonpath={.spec.predictor.model.storageUri}")
    assert uri == "pvc://models/trains"


def test_replace(lab: ApiLab) -> None:
    lab.kubectl("create", "-f", "-", stdin=manifest(isvc("replaced")))
    live = json.loads(lab.kubectl("get", "isvc", "replaced", "-o", "json"))
    live["spec"]["predictor"]["minReplicas"] = 1
    assert "replaced" in lab.kubectl("replace", "-f", "-", stdin=json.dumps(live))
    assert "has been modified" in lab.kubectl("replace", "-f", "-", stdin=json.dumps(live), code=1)
    assert "already exists" in lab.kubectl("create", "-f", "-", stdin=manifest(isvc("replaced")), code=1)


def test_wait_for_a_condition(lab: ApiLab) -> None:
    lab.kubectl("apply", "-f", "-", stdin=manifest(isvc("awaited")))
    timer = threading.Timer(0.3, set_ready, (lab, "awaited"))
    timer.start()
    out = lab.kubectl("wait", "--for=condition=Ready", "isvc/awaited", "--timeout=10s")
    assert "condition met" in out
    timer.join()
    lab.kubectl("delete", "isvc", "awaited", "--wait=false")
    lab.kubectl("wait", "--for=delete", "isvc/awaited", "--timeout=10s")


def test_diff_and_dry_run(lab: ApiLab) -> None:
    lab.kubectl("apply", "-f", "-", stdin=manifest(isvc("differs")))
    assert lab.kubectl("diff", "-f", "-", stdin=manifest(isvc("differs"))) == ""
    text = lab.kubectl("diff", "-f", "-", stdin=manifest(isvc("differs", "pvc://models/trains")), code=1)
    assert "-      storageUri: pvc://models/flights" in text
    assert "+      storageUri: pvc://models/trains" in text
    dry = ("apply", "--dry-run=server", "-f", "-")
    assert "(server dry run)" in lab.kubectl(*dry, stdin=manifest(isvc("differs", "pvc://models/trains")))
    assert "(server dry run)" in lab.kubectl(*dry, stdin=manifest(isvc("never")))
    uri = lab.kubectl("get", "isvc", "differs", "-o", "jsonpath={.spec.predictor.model.storageUri}")
    assert uri == "pvc://models/flights"
    assert not exists(lab, INFERENCE_SERVICE, "never")


def test_delete_cascades(lab: ApiLab) -> None:
    def family(name: str) -> None:
        top = lab.objects.create(INFERENCE_SERVICE, isvc(name))
        owner = {
            "apiVersion": top["apiVersion"],
            "kind": top["kind"],
            "name": name,
            "uid": top["metadata"]["uid"],
        }
        meta = {"name": f"{name}-child", "namespace": "default"}
        meta["ownerReferences"] = [{**owner, "blockOwnerDeletion": True}]  # type: ignore[assignment]
        lab.objects.create(REVISION, {"metadata": meta, "spec": {}})

    for name, policy, stays in (
        ("bg", "background", False),
        ("fg", "foreground", False),
        ("orphan", "orphan", True),
    ):
        lab.do(family, name)
        lab.kubectl("delete", "isvc", name, f"--cascade={policy}", "--wait=true", "--timeout=10s")
        assert not exists(lab, INFERENCE_SERVICE, name)
        wait_until(lambda name=name, stays=stays: exists(lab, REVISION, f"{name}-child") is stays)  # type: ignore[misc]


def test_delete_waits_for_finalizers(lab: ApiLab) -> None:
    lab.do(
        lab.objects.create,
        CONFIG_MAP,
        {"metadata": {"name": "held", "namespace": "default", "finalizers": ["a/b"]}},
    )
    with lab.following("delete", "cm", "held", "--timeout=20s") as process:
        wait_until(
            lambda: "deletionTimestamp" in lab.do(lab.objects.get, CONFIG_MAP, "default", "held")["metadata"]
        )
        assert process.poll() is None
        lab.kubectl("patch", "cm", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        assert process.wait(10) == 0


def test_namespaces(lab: ApiLab) -> None:
    lab.kubectl("create", "namespace", "lab")
    lab.kubectl("create", "configmap", "inside", "--from-literal=a=b", "-n", "lab")
    lab.kubectl("create", "secret", "generic", "keys", "--from-literal=password=hunter2", "-n", "lab")
    secret = json.loads(lab.kubectl("get", "secret", "keys", "-n", "lab", "-o", "json"))
    assert secret["data"] == {"password": "aHVudGVyMg=="}
    assert "hunter2" not in lab.kubectl("describe", "secret", "keys", "-n", "lab")
    lab.kubectl("delete", "namespace", "lab", "--timeout=20s")
    assert "not found" in lab.kubectl("get", "namespace", "lab", code=1)
    assert "may not be deleted" in lab.kubectl("delete", "namespace", "default", code=1)
    assert 'namespaces "lab" not found' in lab.kubectl("create", "configmap", "x", "-n", "lab", code=1)


def test_discovery_and_explain(lab: ApiLab) -> None:
    resources = lab.kubectl("api-resources")
    assert "inferenceservices" in resources
    assert "isvc" in resources
    assert "serving.knative.dev/v1" in lab.kubectl("api-versions")
    explained = lab.kubectl("explain", "isvc.spec.predictor.minReplicas")
    assert "FIELD: minReplicas <integer>" in explained
    assert "FIELDS" in lab.kubectl("explain", "configmap")
    assert "storageUri" in lab.kubectl("explain", "isvc", "--recursive")
    assert "Server Version: v1.34" in lab.kubectl("version")


def test_who_may_do_what(lab: ApiLab) -> None:
    assert lab.kubectl("auth", "can-i", "create", "isvc") == "yes\n"
    assert lab.kubectl("auth", "can-i", "create", "crd", code=1).startswith("no")
    assert "inferenceservices.serving.kserve.io" in lab.kubectl("auth", "can-i", "--list")
    assert "glowplug-admin" in lab.kubectl("auth", "whoami")


def test_pod_deletion_waits_for_its_end(lab: ApiLab) -> None:
    lab.do(lab.objects.create, POD, {"metadata": {"name": "leaving", "namespace": "default"}, "spec": {}})
    lab.kubectl("delete", "pod", "leaving", "--wait=false", "--grace-period=20")
    pod = lab.do(lab.objects.get, POD, "default", "leaving")
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 20
    lab.do(lab.objects.delete, POD, "default", "leaving", 0)
    lab.kubectl("wait", "--for=delete", "pod/leaving", "--timeout=10s")
