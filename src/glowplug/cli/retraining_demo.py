"""`demo retraining`: the whole loop on real flights, from a drift event to a promoted model, and a mistake undone.

Everything is real and on this computer: the local machine with its Broker and the objects of eventing/, Redis, the
drift detector, the rollout controller as a process of its own, Jobs that retrain. What is made up is the time.
"""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import date, datetime, timezone
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import orjson

from glowplug.cli import demo, machine, objects, output
from glowplug.cli.kube import Cluster, connect
from glowplug.cli.predict import service_url
from glowplug.errors import ConfigError, GlowplugError
from glowplug.local.config import MachineConfig
from glowplug.local.datadir import DataDir
from glowplug.wire.events import CloudEvent

try:
    from glowplug.cli.retraining_demo_objects import NAME, NAMESPACE, Object, Scene
    from glowplug.cli.retraining_demo_outcome import (
        Outcome,
        brief,
        report,
        seconds_to_canary,
        wait_succession,
    )
    from glowplug.cli.retraining_demo_processes import start_controller, terminable
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
    from glowplug_pipelines.settings import Span
except ImportError as error:
    raise ConfigError(
        f"the demo needs the package {error.name}",
        hint="pip install 'glowplug[serving,pipelines,controllers]', or `make demo-retraining`",
    ) from error

_KSVC = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/services"
_SOURCE = "/glowplug/demo"
_MARK = "retraining-demo"
_ANSWERS = {
    door_events.FINISHED: "the champion stays",
    door_events.FAILED: "the run failed",
    door_events.SKIPPED: "no run of its own",
}
_REQUESTED = "dev.glowplug.retraining.requested"


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
    with terminable(), ExitStack() as stack:
        lab = _Lab(directory, plan or Plan(), stack, keep=keep)
        lab.start()
        lab.first_version()
        lab.serve()
        lab.replay()
        outcome = lab.ended(started)
    report(outcome)
    if keep:
        output.next_steps(
            f"export KUBECONFIG={shlex.quote(str(directory.kubeconfig))}",
            "kubectl get isvc,revisions,triggers,jobs",
            f"kubectl describe isvc {NAME}",
            f"glowplug rollout status {NAME}",
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
        unit = demo._unit()
        self._view = demo._view(unit)
        self._root = directory.root.resolve()
        # What the detector reads as a mounted claim: promoting puts the champion's profile there, and it counts anew.
        watched = self._root / "volumes" / NAMESPACE / "models" / NAME
        self._registry = replace(RegistryConfig.local(self._root / "mlflow"), champion_profile=str(watched))
        self._offline = str(self._root / "offline" / self._view.name)
        self._scene = Scene(self._root, unit, plan, self._registry, self._offline)
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
        self._cluster: Cluster = connect(self._directory.kubeconfig, None, NAMESPACE)
        self._stack.callback(self._cluster.close)
        self._redis_url = demo._start_redis(self._cluster, self._directory)
        self._door = Door(f"{str(description['urls']['broker']).rstrip('/')}/{NAMESPACE}/default")
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
        settings = self._scene.settings(rounds=self._plan.first_rounds)
        span = Span(_utc(self._plan.start), _utc(self._plan.serving))
        with demo._progress() as progress:
            ahead.start()
            try:
                # The first one may not be better than a naive guess by the proof that the gate wants; it is a start.
                finished = execute(
                    settings, Request(f"{NAME}-first", NAME, span), is_forced=True, progress=progress
                )
            finally:
                ahead.join()
        if finished.version is None:
            raise GlowplugError(f"the first version was not registered: {finished.verdict.reason}")
        self._first: ModelVersion = aliases.promote(self._registry, NAME, finished.version.version)
        output.done(f"version {self._first.version} is champion: {finished.verdict.reason}")

    def serve(self) -> None:
        """The objects, the controller, the service: in the order in which each finds the other."""
        with output.step("applying eventing/local: Broker, Triggers, JobSink, drift detector"):
            shipped = self._scene.eventing(self._door.url)
            for each in (*self._scene.config_maps(self._redis_url, self._view.text), *shipped):
                objects.apply_quietly(self._cluster, each)
            self._detector = self._wait_ready("drift-detector")
            self._wait_ready("dead-letters")
        with output.step("starting the rollout controller"):
            start_controller(
                self._cluster, self._directory.kubeconfig, self._root / "rollout.log", self._stack,
                "--labels-url", f"{self._detector}/metrics", "--sink", self._door.url,
            )  # fmt: skip
        with output.step(f"applying the InferenceService {NAME}: predictor, transformer, pair lock, logger"):
            objects.apply_quietly(self._cluster, self._scene.service(self._first.storage_uri, self._door.url))
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
        url = service_url(self._cluster, NAME)
        self._replay = Replay(
            self._plan, self._stream, self._tables, Service(url, self._detector, NAME, NAMESPACE), self._door,
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
            self._cluster, self._scene.settings_map(f"{AnHourOff.__module__}:{AnHourOff.__name__}")
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
        objects.apply_quietly(self._cluster, self._scene.settings_map())
        self._replay.expect_rollout(began)

    def _request(self, day: date, id: str, more: Object) -> Passed:
        """A person asks for a retraining; how it ended. A Job reads its settings when it starts, so this waits."""
        data = {"model": NAME, "to": f"{day.isoformat()}T00:00:00Z", "force": True, **more}
        attributes: dict[str, Any] = {
            "specversion": "1.0", "id": id, "source": _SOURCE, "type": _REQUESTED, "model": NAME,
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
        output.done(f"{at:%d %b}  {brief(text)}")

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

    def _stop_machine(self) -> None:
        """`keep` leaves a wreck, too; but whoever interrupts wants nothing to be left."""
        is_interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt | SystemExit)
        if not self._keep or is_interrupted:
            machine.down(self._directory.root, timeout_s=60)

    # -- the end --------------------------------------------------------------------------------------------------

    def ended(self, started: float) -> Outcome:
        """What it came to, and the picture."""
        with output.step("waiting for the aliases, comparing with the first model"):
            end = wait_succession(self._registry, NAME, self._first.version, self._deployed, self._marks)
            event_ms, predicted, delays = self._replay.served.columns()
            features = features_of_stream(self._view, self._offline, self._plan)[: len(delays)]
            first_model = Flights(self._scene.settings()).load(
                pathlib.Path(unquote(urlsplit(self._first.storage_uri).path))
            )
            without = np.asarray(first_model.booster.inplace_predict(features), dtype=np.float64) - delays
            errors = predicted - delays
        shown = [mark for mark in self._marks if mark.what != "deployed"]
        first, last = (f"{datetime.fromtimestamp(at / 1000, timezone.utc):%d %B}" for at in event_ms[[0, -1]])
        title = f"Flights out of New York, {first} to {last} 2013: error of the arrival delay"
        picture = draw(
            {"with the loop": (event_ms, errors), "without it": (event_ms, without)},
            [replace(mark, label="") for mark in shown], title, self._root / "retraining.png",
        )  # fmt: skip
        return Outcome(
            plan=self._plan, event_ms=event_ms, delays=delays, errors=errors, errors_without=without, marks=self._marks,
            drift_to_canary_s=seconds_to_canary(self._door, self._deployed),
            champion=end.champion, rejected=end.rejected,
            gate_reason=self._gate_reason, rollback_reason=self._rollback_reason, picture=picture,
            seconds=time.monotonic() - started, features=features,
        )  # fmt: skip


def _make_empty(root: pathlib.Path) -> None:
    """A year can be replayed once: what an earlier demo left is removed, and nobody else's data are."""
    if root.is_dir() and any(root.iterdir()):
        if not (root / _MARK).exists():
            raise ConfigError(f"{root} has another machine's data", hint="name an empty folder: --data-dir")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / _MARK).touch()


def _utc(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
