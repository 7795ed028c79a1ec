"""Back-off, probe tallies, statuses, volumes: decisions with the clock as a parameter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec.kinds import CONFIG_MAP, SECRET
from glowplug.supervisor import volumes
from glowplug.supervisor.backoff import BackoffPolicy, History, Restart, Run, Stay, decide
from glowplug.supervisor.failures import CannotStart
from glowplug.supervisor.probes import Exec, Probe, Tally, TcpSocket, eager_delay_s, observe
from glowplug.supervisor.sources import Sources
from glowplug.supervisor.status import PodView, Running, Snapshot, Terminated, Waiting, pod_status

POLICY = BackoffPolicy()


def delays(runs: list[Run]) -> list[float]:
    history, found = History(), []
    for run in runs:
        history, decision = decide(POLICY, "Always", history, run)
        assert isinstance(decision, Restart)
        found.append(decision.after_s)
    return found


def test_backoff_doubles_and_ends_at_a_minute_or_at_five():
    died = Run(1, 5, was_ready=True)
    broken = Run(1, 5, was_ready=False)
    assert delays([died] * 8) == [0, 1, 2, 4, 8, 16, 32, 60]
    assert delays([broken] * 10) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert delays([broken] * 4 + [Run(0, 601, True), broken]) == [1, 2, 4, 8, 0, 2]


@given(st.lists(st.builds(Run, st.integers(0, 255), st.floats(0, 2000), st.booleans()), max_size=200))
def test_backoff_is_bounded_and_at_once_only_for_the_first_death_in_a_row(runs):
    found = delays(runs)
    assert all(delay == 0 or POLICY.base_s <= delay <= POLICY.never_ready_cap_s for delay in found)
    for index, delay in enumerate(found):
        is_first = index == 0 or runs[index].ran_s >= POLICY.reset_s
        assert (delay == 0) == (is_first and runs[index].was_ready)


def test_restart_policies():
    assert decide(POLICY, "Never", History(), Run(1, 1, True))[1] == Stay(False, "restartPolicy Never")
    assert isinstance(decide(POLICY, "OnFailure", History(), Run(0, 1, True))[1], Stay)
    assert isinstance(decide(POLICY, "OnFailure", History(), Run(2, 1, True))[1], Restart)
    reason = decide(POLICY, "Always", History(), Run(137, 2.34, False))[1].reason
    assert reason == "never became ready: exit code 137 after 2.3s"


@given(st.lists(st.booleans()), st.integers(1, 4), st.integers(1, 4))
def test_a_verdict_changes_only_at_its_threshold(answers, successes, failures):
    probe = Probe(TcpSocket("h", 1), success_threshold=successes, failure_threshold=failures)
    tally = Tally()
    for index, answer in enumerate(answers):
        before, tally = tally.verdict, observe(probe, tally, answer)
        if tally.verdict != before:
            needed = successes if answer else failures
            assert answers[index + 1 - needed : index + 1] == [answer] * needed
            assert tally.verdict is answer


@given(st.floats(0, 10_000), st.floats(0.05, 600))
def test_readiness_is_seen_at_most_five_percent_late(waited, period):
    delay = eager_delay_s(Probe(TcpSocket("h", 1), period_s=period), waited)
    assert delay <= period and delay <= max(0.01, 0.05 * waited) and delay >= min(0.01, period)
    assert eager_delay_s(Probe(Exec(("x",)), period_s=period), waited) >= min(0.5, period)


def view(*snapshots: Snapshot, init: Snapshot | None = None, restart_policy: str = "Always") -> PodView:
    return PodView(init, snapshots, restart_policy, 0)


def conditions(status: dict) -> dict[str, dict]:
    return {each["type"]: each for each in status["conditions"]}


def test_a_status_as_the_kubelet_writes_it():
    ready = Snapshot("a", "img", Running(60), restart_count=2, is_ready=True, is_started=True, pid=42)
    before = pod_status(view(Snapshot("a", "img"), Snapshot("b", "img")), {}, 10)
    assert before["phase"] == "Pending"
    assert conditions(before)["Ready"]["message"] == "containers with unready status: [a b]"
    one = pod_status(view(ready, Snapshot("b", "img")), before, 70)
    assert conditions(one)["Ready"]["lastTransitionTime"] == "1970-01-01T00:00:10Z"
    after = pod_status(view(ready, Snapshot("b", "img", Running(61), is_ready=True)), one, 80)
    assert after["phase"] == "Running" and after["podIP"] == "127.0.0.1"
    assert conditions(after)["Ready"] == {
        "type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": "1970-01-01T00:01:20Z"
    }  # fmt: skip
    assert conditions(after)["Initialized"]["lastTransitionTime"] == "1970-01-01T00:00:10Z"
    assert after["containerStatuses"][0] == {
        "name": "a", "image": "img", "imageID": "", "state": {"running": {"startedAt": "1970-01-01T00:01:00Z"}},
        "lastState": {}, "restartCount": 2, "ready": True, "started": True, "containerID": "process://42",
    }  # fmt: skip
    assert pod_status(view(ready, Snapshot("b", "img", Running(61), is_ready=True)), after, 999) == after


def test_phases():
    ended = Terminated(0, "Completed", "", 1, 2)
    failed = Terminated(1, "Error", "boom", 1, 2)
    crash = Snapshot("a", "", Waiting("CrashLoopBackOff"), last=failed)
    assert pod_status(view(crash), {}, 0)["phase"] == "Running"
    assert pod_status(view(Snapshot("a", "", ended), restart_policy="Never"), {}, 0)["phase"] == "Succeeded"
    both = view(Snapshot("a", "", ended), Snapshot("b", "", failed), restart_policy="OnFailure")
    assert pod_status(both, {}, 0)["phase"] == "Failed"
    assert (
        pod_status(view(crash), {}, 0)["containerStatuses"][0]["lastState"]["terminated"]["message"] == "boom"
    )
    loading = pod_status(view(Snapshot("a", ""), init=Snapshot("storage-initializer", "", Running(1))), {}, 0)
    assert conditions(loading)["Initialized"]["status"] == "False"
    assert loading["initContainerStatuses"][0]["state"]["running"]


FOUND = {
    (CONFIG_MAP, "views"): {"data": {"a.yaml": "one", "b.yaml": "two"}, "binaryData": {"c": "AAE="}},
    (SECRET, "keys"): {"data": {"token": "czNjcjN0"}},
}


def sources() -> Sources:
    return Sources(lambda kind, namespace, name: FOUND.get((kind, name)), "default")


def pod_with(*specs: dict) -> dict:
    metadata = {"name": "p", "namespace": "default", "uid": "u", "labels": {"app": "x"}}
    return {"metadata": metadata, "spec": {"containers": [], "volumes": list(specs)}}


def contents(folder) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}


def test_volumes_become_directories(tmp_path):
    pod = pod_with(
        {"name": "views", "configMap": {"name": "views"}},
        {"name": "keys", "secret": {"secretName": "keys", "items": [{"key": "token", "path": "deep/token"}]}},
        {"name": "gone", "configMap": {"name": "no", "optional": True}},
        {"name": "scratch", "emptyDir": {"medium": "Memory"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "bare"},
        {
            "name": "all",
            "projected": {
                "defaultMode": 0o755,
                "sources": [
                    {"configMap": {"name": "views", "items": [{"key": "a.yaml", "path": "run.sh"}]}},
                    {"secret": {"name": "keys"}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
                        }
                    },
                ],
            },
        },
    )
    found = volumes.materialise(pod, tmp_path / "v", tmp_path / "claims", sources())
    assert contents(found["views"]) == {"a.yaml": b"one", "b.yaml": b"two", "c": b"\x00\x01"}
    token = found["keys"] / "deep" / "token"
    assert token.read_bytes() == b"s3cr3t"
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.resolve().parent.stat().st_mode & 0o777 == 0o700
    assert contents(found["gone"]) == {}
    assert found["claim"] == tmp_path / "claims" / "models" and found["claim"].is_dir()
    assert found["scratch"].is_dir() and found["bare"].is_dir()
    assert contents(found["all"]) == {"run.sh": b"one", "token": b"s3cr3t", "labels": b'app="x"'}
    assert (found["all"] / "run.sh").stat().st_mode & 0o777 == 0o700
    assert volumes.references(pod) == {
        (CONFIG_MAP, "views"), (SECRET, "keys"), (CONFIG_MAP, "no"),
    }  # fmt: skip


def test_what_is_missing_or_unknown_is_said_at_once_and_nothing_is_written(tmp_path):
    pod = pod_with(
        {"name": "a", "configMap": {"name": "no"}},
        {"name": "b", "secret": {"secretName": "keys", "items": [{"key": "nope", "path": "x"}]}},
        {"name": "c", "nfs": {"server": "x"}},
        {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    )
    with pytest.raises(CannotStart) as caught:
        volumes.materialise(pod, tmp_path / "v", tmp_path / "claims", sources())
    for words in (
        'configmap "no" not found',
        "couldn't find key nope in Secret default/keys",
        'volume "c": a volume of kind "nfs" does not exist on this computer',
        'a projected "serviceAccountToken"',
    ):
        assert words in caught.value.message
    assert not (tmp_path / "v").exists()


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "d/e"]), st.binary(max_size=8)), min_size=1, max_size=5
    )
)
def test_a_written_volume_shows_exactly_the_last_set(tmp_path_factory, sets):
    folder = tmp_path_factory.mktemp("volume") / "v"
    for files in sets:
        volumes.write_files(folder, {name: (data, False) for name, data in files.items()})
        shown = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for name in ("a", "b", "d/e")
            if (path := folder / name).is_file()
        }
        assert shown == files
        assert sum(1 for each in folder.iterdir() if each.name.startswith("..")) == 2
