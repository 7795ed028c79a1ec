"""Runs against a real API server and a real MLflow: what is kept, told, taken over, deployed, promoted and rejected."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from local import retraining_lab
from local.apiserver_fixture import ApiLab, api_server
from local.event_sink import EventSink
from local.retraining_lab import DRIFT, REQUESTED, event, steps, wait_until

from glowplug.errors import ApiError, ConfigError, FeatureError, StorageError
from glowplug.operators.api import connection
from glowplug.registry import aliases
from glowplug.registry.models import CHALLENGER, CHAMPION, resolve
from glowplug.spec import names
from glowplug.spec.kinds import REVISION
from glowplug.wire.events import CloudEvent
from glowplug_pipelines import retraining
from glowplug_pipelines.deploying import direct
from glowplug_pipelines.retraining import retrain
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.triggering import record, trigger
from glowplug_pipelines.triggering.keeper import STATE
from glowplug_pipelines.triggering.result import Ending, Made, Surroundings
from glowplug_pipelines.triggering.state import Outcome, Running, Stage, State
from glowplug_pipelines.workload import Progress

# MLflow asks SQLAlchemy for what its next release no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
OLD = "s3://models/flights/1"
QUICK = {"coolDownMinutes": 0, "leaseSeconds": 2}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiLab]:
    with api_server(tmp_path_factory.mktemp("retraining")) as lab:
        yield lab


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where MLflow's database is: an empty one takes seconds to begin."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def sink() -> Iterator[EventSink]:
    with EventSink() as found:
        yield found


@pytest.fixture
def service(lab: ApiLab) -> Iterator[None]:
    """The InferenceService of the champion, with a rollout asked for, and nothing known of runs."""
    isvc = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "flights",
            "annotations": {
                "serving.kserve.io/deploymentMode": "Knative",
                "glowplug.dev/rollout-steps": "10,50,100",
            },
        },
        "spec": {"predictor": {"model": {"modelFormat": {"name": "xgboost"}, "storageUri": OLD}}},
    }
    lab.kubectl("apply", "-f", "-", stdin=json.dumps(isvc))
    has_served(lab)
    yield
    lab.kubectl("delete", "isvc/flights", "events", "--all", "--ignore-not-found", code=None)
    lab.kubectl("delete", "isvc,events,configmaps", "--all")


def has_served(lab: ApiLab, revision: str | None = "flights-predictor-00001") -> None:
    """No controller runs: what it would say of the predictor."""
    patch = {"status": {"components": {"predictor": {"latestReadyRevision": revision}}}}
    lab.kubectl("patch", "isvc", "flights", "--subresource=status", "--type=merge", "-p", json.dumps(patch))


def around(lab: ApiLab, sink: EventSink | None = None, holder: str = "test") -> Surroundings:
    return Surroundings(connection(lab.config.kubeconfig, None), sink.url if sink else "", holder=holder)


def kept(lab: ApiLab) -> State:
    found = json.loads(lab.kubectl("get", "configmap", "glowplug-retraining-flights", "-o", "json"))
    return record.load(found["data"][STATE], "here")


def served(lab: ApiLab) -> tuple[str, dict[str, str]]:
    isvc = json.loads(lab.kubectl("get", "isvc", "flights", "-o", "json"))
    return isvc["spec"]["predictor"]["model"]["storageUri"], isvc["metadata"]["annotations"]


def reasons(lab: ApiLab) -> list[str]:
    found = json.loads(lab.kubectl("get", "events", "-o", "json"))["items"]
    return sorted(each["reason"] for each in found if each["involvedObject"]["name"] == "flights")


def rollout(type: str, **data: Any) -> CloudEvent:
    return event(type, "r1", {"namespace": "default", "name": "flights", "reason": "told", **data})


@pytest.mark.usefixtures("service")
def test_a_run_deploys_and_tells_and_the_rollout_makes_it_champion(
    lab: ApiLab, sink: EventSink, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    settings = retraining_lab.settings(tmp_path, registry=registry)
    ran = retrain(settings, event(DRIFT, "1", {"episode": "e"}), around(lab, sink), steps())
    assert ran.ending is Ending.DEPLOYED, ran
    version = resolve(settings.registry, "flights", CHALLENGER)
    uri, annotations = served(lab)
    assert uri == version.storage_uri
    assert annotations[direct.RUN] == ran.run and annotations[direct.VERSION] == version.version
    state = kept(lab)
    assert state.running is None and state.last is not None and state.last.outcome is Outcome.DEPLOYED
    assert state.challenger is not None and state.challenger.stage is Stage.DEPLOYED and not state.news
    types = [headers["ce-type"].removeprefix("dev.glowplug.") for headers, _ in sink.events]
    assert types == ["model.registered", "retraining.finished"]
    headers, body = sink.events[-1]
    data = json.loads(body)
    assert (headers["ce-source"], headers["ce-subject"]) == ("/glowplug/pipelines/default/flights", ran.run)
    assert (data["verdict"], data["version"], data["storage_uri"]) == ("pass", version.version, uri)
    assert data["trigger"] == {"type": DRIFT, "id": "1", "source": "/test"}
    assert reasons(lab) == ["RetrainingFinished", "RetrainingStarted"]

    for _ in range(2):  # events are delivered at least once
        ended = retrain(settings, rollout(trigger.PROMOTED), around(lab), steps())
        assert ended.ending is Ending.PROMOTED, ended
    assert resolve(settings.registry, "flights", CHAMPION).version == version.version
    assert kept(lab).challenger.stage is Stage.PROMOTED  # type: ignore[union-attr]
    assert reasons(lab).count("ChampionMoved") == 1
    shown = dict(retraining.status(settings, around(lab).connection))
    assert shown["phase"] == "Deployed" and shown["challenger"].startswith(
        f"version {version.version} promoted"
    )


@pytest.mark.usefixtures("service")
def test_a_rollback_rejects_the_challenger_and_others_rollouts_change_nothing(
    lab: ApiLab, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    settings = retraining_lab.settings(tmp_path, registry=registry)
    assert retrain(settings, rollout(trigger.PROMOTED), around(lab), steps()).ending is Ending.IGNORED
    retrain(settings, event(DRIFT, "1"), around(lab), steps())
    version = resolve(settings.registry, "flights", CHALLENGER).version
    other = retrain(settings, rollout(trigger.ROLLED_BACK, name="other"), around(lab), steps())
    assert other.ending is Ending.IGNORED
    ended = retrain(settings, rollout(trigger.ROLLED_BACK, reason="slower by 30 %"), around(lab), steps())
    assert ended.ending is Ending.REJECTED
    assert resolve(settings.registry, "flights", version).tags[aliases.REJECTED_TAG] == "slower by 30 %"
    with pytest.raises(StorageError):
        resolve(settings.registry, "flights", CHALLENGER)
    lab.kubectl(
        "patch", "isvc", "flights", "--type=merge",
        "-p", json.dumps({"spec": {"predictor": {"model": {"storageUri": "s3://by/hand"}}}}),
    )  # fmt: skip
    by_hand = retrain(settings, rollout(trigger.PROMOTED), around(lab), steps())
    assert by_hand.ending is Ending.IGNORED and "written by somebody else" in by_hand.reason


@pytest.mark.usefixtures("service")
def test_ten_at_once_make_one_run(
    lab: ApiLab, sink: EventSink, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    settings = retraining_lab.settings(tmp_path, {"leaseSeconds": 30}, registry=registry)
    runs, others = [], threading.Event()

    def during(running: Running, progress: Progress) -> None:
        runs.append(running.run)
        assert others.wait(60), "the nine others to be answered"

    with ThreadPoolExecutor(10) as pool:
        futures = [
            pool.submit(
                retrain, settings, event(DRIFT, str(each), {"episode": str(each % 3)}),
                around(lab, sink, f"h{each}"), steps(during),
            )
            for each in range(10)
        ]  # fmt: skip
        wait_until(lambda: sum(future.done() for future in futures) == 9, "the nine others")
        others.set()
        endings = sorted(future.result().ending.value for future in futures)
    assert len(runs) == 1 and endings.count("deployed") == 1
    assert set(endings) == {"deployed", "skipped", "waiting"}
    assert len(kept(lab).started) == 1 and kept(lab).waiting is None
    assert len(sink.of_type("dev.glowplug.retraining.finished")) == 1


@pytest.mark.usefixtures("service")
def test_what_waits_is_started_by_the_process_that_ends(
    lab: ApiLab, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    settings = retraining_lab.settings(tmp_path, {**QUICK, "leaseSeconds": 30}, registry=registry)
    asked: list[str] = []

    def during(running: Running, progress: Progress) -> None:
        asked.append(running.trigger.id)
        if len(asked) == 1:
            for id in ("2", "3"):
                late = retrain(settings, event(REQUESTED, id), around(lab, holder=f"h{id}"), steps())
                assert late.ending is Ending.WAITING, late

    first = retrain(settings, event(REQUESTED, "1"), around(lab, holder="h1"), steps(during, is_better=False))
    assert first.ending is Ending.KEPT and asked == ["1", "3"]
    assert served(lab)[0] == OLD, "a challenger that is no better never deploys"


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    "error, said",
    [
        (FeatureError("3 rows from 2013-01-01, expected 1000", hint="a longer window"), "3 rows from"),
        (StorageError("s3://models: connection refused"), "connection refused"),
        (ZeroDivisionError("a mistake"), "ZeroDivisionError: a mistake"),
    ],
)
def test_a_run_that_fails_is_seen_and_can_be_tried_again(
    lab: ApiLab, sink: EventSink, tmp_path: pathlib.Path, registry: pathlib.Path, error: Exception, said: str
) -> None:
    settings, broken = retraining_lab.settings(tmp_path, registry=registry), [error]

    def during(running: Running, progress: Progress) -> None:
        if broken:
            raise broken.pop()

    asked = event(DRIFT, "1", {"episode": "e"})
    failed = retrain(settings, asked, around(lab, sink), steps(during))
    assert failed.is_failure and said in failed.reason
    ((headers, body),) = sink.of_type("dev.glowplug.retraining.failed")
    assert said in json.loads(body)["reason"] and headers["ce-subject"] == failed.run
    assert "RetrainingFailed" in reasons(lab)
    assert said in lab.kubectl("describe", "configmap", "glowplug-retraining-flights")
    assert dict(retraining.status(settings, around(lab).connection))["phase"] == "Failed"
    again = retrain(settings, asked, around(lab, sink), steps(during))
    assert (again.ending, again.run) == (Ending.DEPLOYED, failed.run)


@pytest.mark.usefixtures("service")
def test_an_edit_by_a_person_during_the_run_is_a_conflict(
    lab: ApiLab, sink: EventSink, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    def during(running: Running, progress: Progress) -> None:
        spec = {"spec": {"predictor": {"model": {"storageUri": "s3://by/hand"}}}}
        lab.kubectl("patch", "isvc", "flights", "--type=merge", "-p", json.dumps(spec))

    settings = retraining_lab.settings(tmp_path, registry=registry)
    failed = retrain(settings, event(DRIFT, "1"), around(lab, sink), steps(during))
    assert failed.is_failure and f"is s3://by/hand, expected {OLD}" in failed.reason
    assert served(lab)[0] == "s3://by/hand"
    ((_, body),) = sink.of_type("dev.glowplug.retraining.failed")
    assert json.loads(body)["version"], "it is registered all the same, and said to be"


def test_without_a_service_a_run_fails_before_it_costs_anything(
    lab: ApiLab, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    def never(settings: Settings, running: Running, progress: Progress) -> Made:
        raise AssertionError("it was to fail before")

    failed = retrain(
        retraining_lab.settings(tmp_path, registry=registry), event(DRIFT, "1"), around(lab), never
    )
    assert failed.is_failure and "InferenceService default/flights is not there" in failed.reason
    lab.kubectl("delete", "configmap,events", "--all")


@pytest.mark.usefixtures("service")
def test_who_loses_the_lease_stops_and_deploys_nothing(
    lab: ApiLab, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    settings = retraining_lab.settings(tmp_path, QUICK, registry=registry)

    def during(running: Running, progress: Progress) -> None:
        state = kept(lab)
        assert state.running is not None
        taken = State(running=Running(running.run, running.trigger, "another", 0, 0), started=state.started)
        patch = {"data": {STATE: record.dump(taken)}}
        lab.kubectl(
            "patch", "configmap", "glowplug-retraining-flights", "--type=merge", "-p", json.dumps(patch)
        )
        end = threading.Event()
        while not end.wait(0.05):
            progress("working", 0, 0)

    lost = retrain(settings, event(DRIFT, "1"), around(lab), steps(during))
    assert lost.is_failure and "another works at" in lost.reason
    assert served(lab)[0] == OLD and kept(lab).running.holder == "another"  # type: ignore[union-attr]


WORKER = """
import pathlib, sys
from glowplug.operators.api import connection
from glowplug_pipelines.retraining import retrain
from glowplug_pipelines.triggering.result import Surroundings
from local.retraining_lab import DRIFT, event, settings, steps

folder, kubeconfig, holder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]

def during(running, progress):
    (folder / f"{holder}.run").write_text(running.run)
    while not (folder / "go").exists():
        pass

around = Surroundings(connection(kubeconfig, None), holder=holder)
made = steps(during if holder == "first" else lambda running, progress: None, is_better=False)
result = retrain(settings(folder, {"leaseSeconds": 2}), event(DRIFT, "1"), around, made)
print(result.ending.value, result.run)
sys.exit(result.is_failure)
"""


def worker(lab: ApiLab, folder: pathlib.Path, holder: str) -> subprocess.Popen[str]:
    root = pathlib.Path(__file__).parents[2]
    paths = [root / "src", root / "pipelines/src", root / "tests"]
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), str(lab.config.kubeconfig), holder],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_is_followed_by_another_with_the_same_run(
    lab: ApiLab, tmp_path: pathlib.Path, how: signal.Signals
) -> None:
    with worker(lab, tmp_path, "first") as first:
        run = wait_until(
            lambda: (tmp_path / "first.run").exists() and (tmp_path / "first.run").read_text(), "the run"
        )
        first.send_signal(how)
        assert first.wait(30) == (-how if how is signal.SIGKILL else 1), first.communicate()
    with worker(lab, tmp_path, "second") as second:
        out, err = second.communicate(timeout=60)
    assert out.split() == ["kept", run], err
    state = kept(lab)
    assert state.last is not None and state.last.attempt == 2 and len(state.started) == 1


def test_a_state_that_cannot_be_read_stops_everything_and_says_where(
    lab: ApiLab, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    lab.kubectl("create", "configmap", "glowplug-retraining-flights", f"--from-literal={STATE}=nonsense")
    with pytest.raises(ConfigError, match="ConfigMap default/glowplug-retraining-flights cannot be read"):
        retrain(retraining_lab.settings(tmp_path, registry=registry), event(DRIFT, "1"), around(lab), steps())
    lab.kubectl("delete", "configmap", "glowplug-retraining-flights")


def test_without_an_api_nothing_begins(lab: ApiLab, tmp_path: pathlib.Path, registry: pathlib.Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(lab.config.kubeconfig.read_text().replace(lab.url, "https://127.0.0.1:9"))
    nowhere = Surroundings(connection(kubeconfig, None))
    with pytest.raises((OSError, ApiError), match="configmaps"):
        retrain(retraining_lab.settings(tmp_path, registry=registry), event(DRIFT, "1"), nowhere, steps())


@pytest.mark.usefixtures("service")
def test_a_storage_uri_written_by_hand_beside_our_annotation_promotes_nothing(
    lab: ApiLab, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    settings = retraining_lab.settings(tmp_path, registry=registry)
    retrain(settings, event(DRIFT, "1"), around(lab), steps())
    version = resolve(settings.registry, "flights", CHALLENGER)
    for uri, ending in (("s3://by/hand", Ending.IGNORED), (version.storage_uri, Ending.PROMOTED)):
        revision = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Revision",
            "metadata": {
                "name": "flights-predictor-00002",
                "namespace": "default",
                "annotations": {direct.VERSION: version.version, names.STORAGE_SOURCE_URI: uri},
            },
            "spec": {"containers": [{"image": "any"}]},
        }
        lab.do(lab.objects.create, REVISION, revision)
        told = rollout(trigger.PROMOTED, canary={"predictor": "flights-predictor-00002"})
        ended = retrain(settings, told, around(lab), steps())
        assert ended.ending is ending, ended
        lab.kubectl("delete", "revision", "flights-predictor-00002")


@pytest.mark.usefixtures("service")
def test_the_first_version_that_serves_has_no_rollout_to_wait_for(
    lab: ApiLab, sink: EventSink, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    has_served(lab, None)
    settings = retraining_lab.settings(tmp_path, deploying={"readySeconds": 0.5}, registry=registry)
    failed = retrain(settings, event(DRIFT, "1"), around(lab, sink), steps())
    assert "not ready after 0.5 s" in failed.reason, "it waited until it serves, and nothing else"


def without_rollout(lab: ApiLab) -> None:
    lab.kubectl("annotate", "isvc", "flights", "glowplug.dev/rollout-steps-")


def write_uri(lab: ApiLab, uri: str) -> None:
    spec = {"spec": {"predictor": {"model": {"storageUri": uri}}}}
    lab.kubectl("patch", "isvc", "flights", "--type=merge", "-p", json.dumps(spec))


@pytest.mark.usefixtures("service")
def test_a_version_that_never_gets_ready_is_rejected_and_what_was_there_is_put_back(
    lab: ApiLab, sink: EventSink, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    """Nothing makes this InferenceService ready: no controller runs."""
    without_rollout(lab)
    settings = retraining_lab.settings(tmp_path, deploying={"readySeconds": 0.5}, registry=registry)
    failed = retrain(settings, event(DRIFT, "1"), around(lab, sink), steps())
    assert (
        failed.is_failure and f"not ready after 0.5 s: it is not Ready; {OLD} was put back" in failed.reason
    )
    uri, annotations = served(lab)
    assert uri == OLD and direct.VERSION not in annotations and direct.RUN not in annotations
    ((_, body),) = sink.of_type("dev.glowplug.retraining.failed")
    version = resolve(settings.registry, "flights", json.loads(body)["version"])
    assert "not ready" in version.tags[aliases.REJECTED_TAG]
    assert kept(lab).challenger.stage is Stage.REJECTED  # type: ignore[union-attr]


@pytest.mark.usefixtures("service")
def test_what_somebody_wrote_meanwhile_is_left(
    lab: ApiLab, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    without_rollout(lab)
    settings = retraining_lab.settings(tmp_path, deploying={"readySeconds": 60}, registry=registry)
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(retrain, settings, event(DRIFT, "1"), around(lab), steps())
        wait_until(lambda: served(lab)[0] != OLD, "the version to be deployed")
        write_uri(lab, "s3://by/hand")
        failed = ran.result(60)
    assert failed.is_failure and "another version has been written" in failed.reason
    assert served(lab)[0] == "s3://by/hand"


@pytest.mark.usefixtures("service")
def test_a_merged_version_is_champion_once_the_next_event_finds_it_serving(
    lab: ApiLab, tmp_path: pathlib.Path, registry: pathlib.Path
) -> None:
    """No rollout is asked for, and a person merges: nobody else would tell."""
    settings = retraining_lab.settings(tmp_path, registry=registry)
    retrain(settings, event(DRIFT, "1"), around(lab), steps())
    version = resolve(settings.registry, "flights", CHALLENGER)
    without_rollout(lab)

    def told(id: str, uri: str, ready: str) -> Stage:
        write_uri(lab, uri)
        serving = {"latestCreatedRevision": "flights-1", "latestReadyRevision": "flights-1"}
        status = {"conditions": [{"type": "Ready", "status": ready}], "components": {"predictor": serving}}
        lab.kubectl(
            "patch", "isvc", "flights", "--subresource=status", "--type=merge",
            "-p", json.dumps({"status": status}),
        )  # fmt: skip
        assert retrain(settings, event(DRIFT, id), around(lab), steps()).ending is Ending.SKIPPED
        challenger = kept(lab).challenger
        assert challenger is not None
        return challenger.stage

    assert told("2", version.storage_uri, "False") is Stage.DEPLOYED, "it does not serve yet"
    assert told("3", OLD, "True") is Stage.DEPLOYED, "it is not merged yet"
    revision = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": "flights-1",
            "namespace": "default",
            "annotations": {names.STORAGE_SOURCE_URI: OLD, direct.VERSION: version.version},
        },
        "spec": {"containers": [{"image": "any"}]},
    }
    lab.do(lab.objects.create, REVISION, revision)
    assert told("5", version.storage_uri, "True") is Stage.DEPLOYED, "what is ready is the revision before"
    lab.kubectl("delete", "revision", "flights-1")
    assert told("4", version.storage_uri, "True") is Stage.PROMOTED
    assert resolve(settings.registry, "flights", CHAMPION).version == version.version
    assert reasons(lab).count("ChampionMoved") == 1
