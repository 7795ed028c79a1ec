"""`demo retraining`: the whole loop on real flights, from a drift event to a promoted model, and a mistake undone.

Everything is real and on this computer: the local machine with its Broker and the objects of eventing/, Redis, the
drift detector, the rollout controller as a process of its own, Jobs that retrain. What is made up is the time.
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import orjson
import yaml

from glowplug.cli import demo, machine, objects, output
from glowplug.cli.kube import Cluster, connect
from glowplug.cli.predict import service_url
from glowplug.errors import ConfigError, GlowplugError, NotFound
from glowplug.local.config import MachineConfig
from glowplug.local.datadir import DataDir
from glowplug.local.units import unit_folders
from glowplug.spec import names
from glowplug.wire.events import CloudEvent

try:
    from glowplug.registry import aliases
    from glowplug.registry.models import ModelVersion, RegistryConfig
    from glowplug_flights import retraining_demo_door as door_events
    from glowplug_flights.retraining_demo import AnHourOff, Plan, Tables, days, features_of_stream, stream
    from glowplug_flights.retraining_demo_door import Door, Passed, moment
    from glowplug_flights.retraining_demo_plot import Mark, draw
    from glowplug_flights.retraining_demo_replay import Replay, Service
    from glowplug_flights.workload import Flights
    from glowplug_pipelines.execution import execute
    from glowplug_pipelines.run import Request
    from glowplug_pipelines.settings import Settings, Span, parse_settings
except ImportError as error:
    raise ConfigError(
        f"the demo needs the package {error.name}",
        hint="pip install 'glowplug[serving,pipelines,controllers]', or `make demo-retraining`",
    ) from error

_NAME, _NAMESPACE = "flights", "default"
_WEBHOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/rollout.glowplug.dev"
_KSVC = f"/apis/serving.knative.dev/v1/namespaces/{_NAMESPACE}/services"
_SOURCE = "/glowplug/demo"
_MARK = "retraining-demo"
_BRIEF = 160
_ANSWERS = {
    door_events.FINISHED: "the champion stays",
    door_events.FAILED: "the run failed",
    door_events.SKIPPED: "no run of its own",
}
_REQUESTED = "dev.glowplug.retraining.requested"
_CHAMPION_S = 90.0
_STOP_S = 20.0
Object = dict[str, Any]


@dataclass
class Outcome:
    """What the loop came to. Errors are predicted less actual minutes, a flight each, in the order of `event_ms`."""

    plan: Plan
    event_ms: Any
    delays: Any
    errors: Any
    errors_without: Any
    marks: list[Mark]
    drift_to_canary_s: list[float]
    champion: str
    rejected: dict[str, str]
    gate_reason: str
    rollback_reason: str
    picture: pathlib.Path
    seconds: float
    features: Any = field(repr=False)

    @property
    def mae(self) -> float:
        return float(np.abs(self.errors).mean())

    @property
    def mae_without(self) -> float:
        return float(np.abs(self.errors_without).mean())

    def happened(self, what: str) -> list[Mark]:
        """The marks of one kind."""
        return [mark for mark in self.marks if mark.what == what]


def run(data_dir: pathlib.Path, *, keep: bool, plan: Plan | None = None) -> Outcome:
    """All of it. Nothing is left running, whatever happens; but for the machine if `keep`."""
    started = time.monotonic()
    directory = DataDir.at(data_dir)
    if (holder := directory.holder()) is not None:
        raise ConfigError(
            f"{directory.root} is held by the machine with process id {holder}; the loop wants one of its own",
            hint=f"glowplug down{machine.data_dir_flag(data_dir)}, or another --data-dir",
        )
    _make_empty(directory.root)
    with _terminable(), ExitStack() as stack:
        lab = _Lab(directory, plan or Plan(), stack, keep=keep)
        lab.start()
        lab.first_version()
        lab.serve()
        lab.replay()
        outcome = lab.ended(started)
    _report(outcome)
    if keep:
        output.next_steps(
            f"export KUBECONFIG={shlex.quote(str(directory.kubeconfig))}",
            "kubectl get isvc,revisions,triggers,jobs",
            f"kubectl describe isvc {_NAME}",
            f"glowplug rollout status {_NAME}",
            f"glowplug down{machine.data_dir_flag(data_dir)}",
        )
    else:
        output.next_steps(
            f"open {shlex.quote(output.relative(outcome.picture))}",
            f"glowplug demo retraining --keep{machine.data_dir_flag(data_dir)}",
        )
    return outcome


class _Lab:
    """One run of the demo: what it has started is stopped by `stack`."""

    def __init__(self, directory: DataDir, plan: Plan, stack: ExitStack, *, keep: bool) -> None:
        self._directory, self._plan, self._stack, self._keep = directory, plan, stack, keep
        self._unit = demo._unit()
        self._view = demo._view(self._unit)
        self._root = directory.root.resolve()
        # What the detector reads as a mounted claim: promoting puts the champion's profile there, and it counts anew.
        watched = self._root / "volumes" / _NAMESPACE / "models" / _NAME
        self._registry = replace(RegistryConfig.local(self._root / "mlflow"), champion_profile=str(watched))
        self._offline = str(self._root / "offline" / self._view.name)
        self._deployed: list[Passed] = []
        self._marks: list[Mark] = []
        self._gate_reason = self._rollback_reason = ""

    # -- what is started ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The machine, Redis, the door, and the objects of eventing/."""
        data_dir = self._directory.root
        config = MachineConfig(data_dir, ingress_port=0, api_port=0, broker_port=0)
        # Asked for before it is started: a Ctrl-C while it starts must find it, too.
        self._stack.callback(self._stop_machine)
        with output.step("starting the local machine"):
            description = machine.start_detached(config)
        self._cluster: Cluster = connect(self._directory.kubeconfig, None, _NAMESPACE)
        self._stack.callback(self._cluster.close)
        self._redis_url = demo._start_redis(self._cluster, self._directory)
        self._door = Door(f"{str(description['urls']['broker']).rstrip('/')}/{_NAMESPACE}/default")
        self._stack.callback(self._door.close)
        self._tables = Tables(self._view, self._offline, self._redis_url, self._plan)
        self._stack.callback(self._tables.close)

    def first_version(self) -> None:
        """The model of the months before anything is served, by the pipeline's own steps, as champion."""
        with demo._progress() as progress:
            rows = self._tables.build_history(progress)
        output.done(f"offline features: {demo._counts(rows)}")
        # What is replayed first is built while the model is being trained.
        first_day = date.fromisoformat(self._plan.serving)
        ahead = threading.Thread(target=self._tables.reach, args=(first_day,), name="first tables")
        settings = self._settings(rounds=self._plan.first_rounds)
        span = Span(_utc(self._plan.start), _utc(self._plan.serving))
        with demo._progress() as progress:
            ahead.start()
            try:
                # The first one may not be better than a naive guess by the proof that the gate wants; it is a start.
                finished = execute(
                    settings, Request(f"{_NAME}-first", _NAME, span), is_forced=True, progress=progress
                )
            finally:
                ahead.join()
        if finished.version is None:
            raise GlowplugError(f"the first version was not registered: {finished.verdict.reason}")
        self._first: ModelVersion = aliases.promote(self._registry, _NAME, finished.version.version)
        output.done(f"version {self._first.version} is champion: {finished.verdict.reason}")

    def serve(self) -> None:
        """The objects, the controller, the service: in the order in which each finds the other."""
        with output.step("applying eventing/local: Broker, Triggers, JobSink, drift detector"):
            self._config_maps()
            for each in self._eventing():
                objects.apply_quietly(self._cluster, each)
            self._detector = self._wait_ready("drift-detector")
            self._wait_ready("dead-letters")
        with output.step("starting the rollout controller"):
            self._start_controller()
        with output.step(f"applying the InferenceService {_NAME}: predictor, transformer, pair lock, logger"):
            objects.apply_quietly(self._cluster, self._service())
            self._stream = stream(self._view, self._plan)
            first = next(self._stream.day(date.fromisoformat(self._plan.serving), 1, "first"))
            body = orjson.dumps(first.body())
            import httpx2

            with httpx2.Client(trust_env=False, timeout=10) as client:
                demo._wait(
                    lambda: demo._first_answer(self._cluster, client, body),
                    "the first prediction",
                    lambda: demo._service_account(self._cluster),
                )
        url = service_url(self._cluster, _NAME)
        self._replay = Replay(
            self._plan, self._stream, self._tables, Service(url, self._detector, _NAME, _NAMESPACE), self._door,
            self._on_rollout, self._on_day,
        )  # fmt: skip
        # Its copies are no part of what is counted.
        self._replay.requests += 1
        self._stack.callback(self._replay.close)

    def replay(self) -> None:
        """April to December; towards the end the mistake."""
        with output.progress() as bar:
            every = list(days(self._plan.serving, self._plan.stop))
            self._bar, self._task = bar, bar.add_task("replaying", total=len(every))
            place = sum(day.isoformat() < self._plan.mistake for day in every)
            self._replay.run(every[:place])
            # What is under way is gone through with first: a mistake while a canary is out would be another story.
            while self._replay.is_rolling_out and place < len(every):
                place += self._replay.run(every[place:], until=lambda: not self._replay.is_rolling_out)
            self._mistake(every[min(place, len(every) - 1)])
            self._replay.run(every[place:])

    # -- the mistake ----------------------------------------------------------------------------------------------

    def _mistake(self, day: date) -> None:
        """Somebody's change of the workload: stopped by the gate, then forced past it."""
        objects.apply_quietly(
            self._cluster, self._settings_map(f"{AnHourOff.__module__}:{AnHourOff.__name__}")
        )
        stopped = self._request(day, "mistake", {})
        if stopped.data.get("outcome") != "kept":
            raise GlowplugError(f"the gate was to stop the mistake: {json.dumps(stopped.data)}")
        self._gate_reason = str(stopped.data.get("reason", ""))
        self._happened(
            stopped, "stopped by the gate", f"a mistake is stopped by the gate: {self._gate_reason}"
        )
        began = time.time()
        forced = self._request(day, "mistake-forced", {"pastGate": True})
        if forced.data.get("outcome") != "deployed":
            raise GlowplugError(f"past the gate it was to be deployed: {json.dumps(forced.data)}")
        self._deployed.append(forced)
        output.warned(f"version {forced.data['version']} is forced past the gate")
        objects.apply_quietly(self._cluster, self._settings_map())
        self._replay.expect_rollout(began)

    def _request(self, day: date, id: str, more: Object) -> Passed:
        """A person asks for a retraining; how it ended. A Job reads its settings when it starts, so this waits."""
        data = {"model": _NAME, "to": f"{day.isoformat()}T00:00:00Z", "force": True, **more}
        attributes: dict[str, Any] = {
            "specversion": "1.0", "id": id, "source": _SOURCE, "type": _REQUESTED, "model": _NAME,
            "time": moment(time.time()), "datacontenttype": "application/json",
        }  # fmt: skip
        self._door.send(CloudEvent(attributes, orjson.dumps(data)))
        return self._replay.answer_to(id)

    # -- what happens meanwhile -----------------------------------------------------------------------------------

    def _on_day(self, day: date) -> None:
        self._bar.update(self._task, advance=1, description=f"{day:%d %b}")
        self._tell()

    def _tell(self) -> None:
        """What went by since the last time, in words and as marks."""
        known = {mark.label for mark in self._marks}
        for each in self._door.passed(door_events.DRIFT, *_ANSWERS):
            if each.id in known or (each.data.get("trigger") or {}).get("source") == _SOURCE:
                continue
            reason = str(each.data.get("reason", ""))
            if each.type == door_events.DRIFT:
                self._happened(each, "drift", f"drift: {reason}")
            elif each.type == door_events.FINISHED and each.data.get("outcome") == "deployed":
                self._deployed.append(each)
                self._happened(each, "deployed", reason)
            else:
                self._happened(each, "kept", f"{_ANSWERS[each.type]}: {reason}")

    def _on_rollout(self, ended: Passed) -> None:
        self._tell()
        reason, latest = str(ended.data.get("reason", "")), self._deployed[-1].data
        if ended.type == door_events.PROMOTED:
            self._happened(ended, "promoted", f"version {latest['version']} has all requests: {reason}")
        else:
            self._rollback_reason = reason
            self._happened(ended, "rolled back", f"version {latest['version']} is rolled back: {reason}")

    def _happened(self, event: Passed, what: str, text: str) -> None:
        self._marks.append(Mark(event.replayed_ms, what, event.id))
        at = datetime.fromtimestamp(event.replayed_ms / 1000, timezone.utc)
        output.done(f"{at:%d %b}  {_brief(text)}")

    # -- objects --------------------------------------------------------------------------------------------------

    def _settings(self, workload: str = "", rounds: int = 0) -> Settings:
        text = self._settings_text(workload, rounds or self._plan.rounds)
        return parse_settings(text, "the demo's settings", {})

    def _settings_text(self, workload: str, rounds: int) -> str:
        """pipelines/job/pipeline.yaml with the demo's own window, and no more to wait for between two runs.

        Paths are this computer's: where volumes are mounted is made true in arguments and variables, not in files.
        """
        shipped = yaml.safe_load((_shipped("pipelines") / "job/pipeline.yaml").read_text())
        return yaml.safe_dump(
            shipped
            | {
                "workload": workload or f"{Flights.__module__}:{Flights.__name__}",
                "workDir": str(self._root / "pipelines"),
                "offline": {"url": self._offline},
                "registry": {
                    "uri": self._registry.uri,
                    "artifacts": self._registry.artifacts,
                    "championProfile": self._registry.champion_profile,
                },
                "window": {**shipped["window"], **self._plan.window},
                "gate": {**shipped["gate"], **self._plan.gate},
                "options": {
                    **shipped["options"],
                    "rounds": rounds,
                    "featureView": str(self._unit / "feature_view.yaml"),
                },
                "triggering": {"coolDownMinutes": 0, "runsPerDay": 1000},
            }
        )

    def _settings_map(self, workload: str = "") -> Object:
        text = self._settings_text(workload, self._plan.rounds)
        return demo._config_map("retrain-flights", {"pipeline.yaml": text})

    def _config_maps(self) -> None:
        for each in (
            demo._config_map("feature-store", {"REDIS_URL": self._redis_url}),
            demo._config_map("feature-views", {"feature_view.yaml": self._view.text}),
        ):
            objects.apply_quietly(self._cluster, each)

    def _eventing(self) -> Iterator[Object]:
        """eventing/local as it is, but for the door's address, the demo's settings, and the detector's numbers."""
        for document in objects.read_documents([], [_shipped("eventing") / "local"]):
            found, name = document.object, document.object["metadata"]["name"]
            if found["kind"] == "ConfigMap" and name == "events":
                found["data"]["K_SINK"] = self._door.url
            elif found["kind"] == "ConfigMap" and name == "retrain-flights":
                found = self._settings_map()
            elif found["kind"] == "Service" and name == "drift-detector":
                (container,) = found["spec"]["template"]["spec"]["containers"]
                container["env"] += [
                    {"name": f"GLOWPLUG_DRIFT_{key.upper()}", "value": value}
                    for key, value in {"reload_s": "0.5", **self._plan.drift}.items()
                ]
            yield found

    def _service(self) -> Object:
        """The service in two components, so that the features are seen between them."""
        views = {"name": "feature-views", "mountPath": "/etc/glowplug/feature-views", "readOnly": True}
        lookup = {
            "name": "kserve-container",
            "image": "glowplug/feature-lookup:0.1.0",
            "args": [
                f"--model_name={_NAME}", "--http_port=8080", "--predictor_protocol=v2", "--redis_timeout_s=10",
                "--feature_view=/etc/glowplug/feature-views/feature_view.yaml",
            ],
            "envFrom": [{"configMapRef": {"name": "feature-store"}}],
            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 8080}},
            "volumeMounts": [views],
        }  # fmt: skip
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": _NAME,
                "namespace": _NAMESPACE,
                "annotations": {
                    names.DEPLOYMENT_MODE: "Knative",
                    names.PAIR_LOCK: "true",
                    names.ROLLOUT_STEPS: "10,50,100",
                    names.ROLLOUT_INTERVAL: self._plan.interval,
                    names.ROLLOUT_GATES: self._plan.gates,
                },
            },
            "spec": {
                "predictor": {
                    "minReplicas": 1,
                    "maxReplicas": 1,
                    "model": {
                        "modelFormat": {"name": "xgboost"},
                        "protocolVersion": "v2",
                        "storageUri": self._first.storage_uri,
                    },
                    "logger": {
                        "mode": "all",
                        "url": self._door.url,
                        "metadataHeaders": ["Knative-Serving-Revision"],
                    },
                },
                "transformer": {
                    "minReplicas": 1,
                    "maxReplicas": 1,
                    "containers": [lookup],
                    "volumes": [{"name": "feature-views", "configMap": {"name": "feature-views"}}],
                },
            },
        }

    def _wait_ready(self, name: str) -> str:
        """Where the Knative Service answers, once it is ready."""
        found: Object = {}

        def is_ready() -> bool:
            nonlocal found
            found = self._cluster.get(f"{_KSVC}/{name}").get("status") or {}
            conditions = {each["type"]: each["status"] for each in found.get("conditions") or ()}
            return conditions.get("Ready") == "True" and bool((found.get("address") or {}).get("url"))

        demo._wait(is_ready, f"{name} to be ready", lambda: json.dumps(found, indent=2))
        return str(found["address"]["url"]).rstrip("/")

    # -- processes and files --------------------------------------------------------------------------------------

    def _start_controller(self) -> None:
        command = [
            sys.executable, "-m", "glowplug.cli.main", "rollout", "run", "--lease-duration", "2",
            "--interval", "0.5", "--labels-url", f"{self._detector}/metrics", "--sink", self._door.url,
        ]  # fmt: skip
        environment = {**os.environ, "KUBECONFIG": str(self._directory.kubeconfig)}
        log = self._root / "rollout.log"
        with log.open("wb") as file:
            # A session of its own: a Ctrl-C is for us, and we stop it before the machine that it works on.
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._stack.callback(_stop, process)

        def is_asked() -> bool:
            if process.poll() is not None:
                raise GlowplugError(f"the rollout controller has ended:\n{log.read_text()[-2000:]}")
            try:
                self._cluster.get(_WEBHOOK)
            except NotFound:
                return False
            return True

        demo._wait(is_asked, "the rollout controller", lambda: log.read_text()[-2000:])

    def _stop_machine(self) -> None:
        """`keep` leaves a wreck, too; but whoever interrupts wants nothing to be left."""
        is_interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt | SystemExit)
        if not self._keep or is_interrupted:
            machine.down(self._directory.root, timeout_s=60)

    # -- the end --------------------------------------------------------------------------------------------------

    def ended(self, started: float) -> Outcome:
        """What it came to, and the picture."""
        with output.step("waiting for the aliases, comparing with the first model"):
            champion, rejected = self._aliases()
            event_ms, predicted, delays = self._replay.served.columns()
            features = features_of_stream(self._view, self._offline, self._plan)[: len(delays)]
            workload = Flights(self._settings())
            booster = workload.load(pathlib.Path(unquote(urlsplit(self._first.storage_uri).path)))
            errors, without = predicted - delays, booster.predict(features) - delays
        shown = [mark for mark in self._marks if mark.what != "deployed"]
        first, last = (f"{datetime.fromtimestamp(at / 1000, timezone.utc):%d %B}" for at in event_ms[[0, -1]])
        title = f"Flights out of New York, {first} to {last} 2013: error of the arrival delay"
        picture = draw(
            {"with the loop": (event_ms, errors), "without it": (event_ms, without)},
            [replace(mark, label="") for mark in shown], title, self._root / "retraining.png",
        )  # fmt: skip
        return Outcome(
            plan=self._plan, event_ms=event_ms, delays=delays, errors=errors, errors_without=without, marks=self._marks,
            drift_to_canary_s=self._until_canary(), champion=champion, rejected=rejected,
            gate_reason=self._gate_reason, rollback_reason=self._rollback_reason, picture=picture,
            seconds=time.monotonic() - started, features=features,
        )  # fmt: skip

    def _aliases(self) -> tuple[str, dict[str, str]]:
        """(the champion, why others were rejected), once the Jobs that move them are through."""
        versions = [str(each.data["version"]) for each in self._deployed]
        ends = [mark.what for mark in self._marks if mark.what in ("promoted", "rolled back")]
        promoted = [version for version, end in zip(versions, ends, strict=False) if end == "promoted"]
        refused = [version for version, end in zip(versions, ends, strict=False) if end == "rolled back"]
        wanted = promoted[-1] if promoted else self._first.version
        limit = time.monotonic() + _CHAMPION_S
        while True:
            found = aliases.champion(self._registry, _NAME)
            champion = found.version.version if found.version else ""
            rejected = {each: self._rejection(each) for each in refused}
            if champion == wanted and all(rejected.values()):
                return champion, rejected
            if time.monotonic() > limit:
                raise GlowplugError(
                    f"champion is version {champion or 'none'}, expected {wanted}; rejected: {rejected}",
                    hint="the Jobs' logs say why: kubectl get jobs",
                )
            time.sleep(0.2)

    def _rejection(self, version: str) -> str:
        from glowplug.registry.models import resolve

        return resolve(self._registry, _NAME, version).tags.get(aliases.REJECTED_TAG, "")

    def _until_canary(self) -> list[float]:
        """Seconds from each drift event to the first request of the canary that came of it."""
        found = []
        for each in self._deployed:
            id = (each.data.get("trigger") or {}).get("id")
            asked = [event for event in self._door.passed(door_events.DRIFT) if event.id == id]
            after = [at for at in self._door.first_request.values() if asked and at > each.wall]
            if after:
                found.append(min(after) - asked[0].wall)
        return found


def _report(outcome: Outcome) -> None:
    change = 100 * (outcome.mae / outcome.mae_without - 1)
    print(
        f"\nmean absolute error over {len(outcome.errors):,} flights, minutes:\n"
        f"  {outcome.mae:6.2f}  with the loop\n"
        f"  {outcome.mae_without:6.2f}  without it\n"
        f"  {change:+.1f} %; champion is version {outcome.champion}"
    )
    promoted = outcome.happened("promoted")
    if promoted:
        after = outcome.event_ms > promoted[0].at_ms
        with_it, without = (
            float(np.abs(each[after]).mean()) for each in (outcome.errors, outcome.errors_without)
        )
        print(f"  {with_it:6.2f}  after the first promotion; {without:.2f} without it")
    for seconds in outcome.drift_to_canary_s:
        print(f"  {seconds:6.1f} s from the drift event to the first request of the canary")
    print(f"picture: {output.relative(outcome.picture)}")
    sys.stdout.flush()
    output.done(f"{outcome.seconds:.0f} s in all")


def _brief(reason: str) -> str:
    """What comes first: a verdict may have a page of reasons."""
    return reason if len(reason) <= _BRIEF else f"{reason[:_BRIEF].rsplit(' ', 1)[0]} …"


def _make_empty(root: pathlib.Path) -> None:
    """A year can be replayed once: what an earlier demo left is removed, and nobody else's data are."""
    if root.is_dir() and any(root.iterdir()):
        if not (root / _MARK).exists():
            raise ConfigError(f"{root} has another machine's data", hint="name an empty folder: --data-dir")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / _MARK).touch()


def _shipped(unit: str) -> pathlib.Path:
    for folder in unit_folders():
        if folder.name == unit:
            return folder
    raise ConfigError(f"the folder {unit} is not here", hint="install glowplug anew")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As for any process of ours: asked, then ended."""
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that all that was started is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _utc(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
