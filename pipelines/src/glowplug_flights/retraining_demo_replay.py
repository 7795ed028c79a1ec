"""The year, day by day: real requests through the ingress, labels some days later, and a clock that waits.

Data time runs hundreds of times faster than ours, and a retraining does not: from the moment when something asks for
one until its run has ended, and until the canary is there, the replay stands still. That is what it would look like at
a day's pace, where a minute is nothing. While a rollout goes on, requests are small, so that there are enough of them
to judge by.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import httpx2
import numpy as np
import orjson

from glowplug.drift.payloads import LABEL
from glowplug.errors import GlowplugError
from glowplug.wire.events import CloudEvent
from glowplug_flights.retraining_demo import DAY_MS, Batch, Plan, Stream, Tables, midnight_ms
from glowplug_flights.retraining_demo_door import (
    ADVANCED,
    DRIFT,
    FAILED,
    FINISHED,
    PROMOTED,
    ROLLED_BACK,
    SKIPPED,
    Door,
    Passed,
    moment,
)
from glowplug_pipelines.rows import Float64s, Int64s

_REQUEST_S = 60.0
# A run takes seconds on a quiet computer.
_RUN_S = 900.0
_CANARY_S = 300.0
_COUNTED_S = 5.0
_LOOK_S = 0.02
_HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True)
class Service:
    """Where requests go, and where the detector tells what it has counted. `namespace`/`name` is the service's."""

    url: str
    detector: str
    name: str = "flights"
    namespace: str = "default"


@dataclass
class Served:
    """What was answered, a flight each, in the order of asking."""

    event_ms: list[Int64s] = field(default_factory=list)
    predicted: list[Float64s] = field(default_factory=list)
    delays: list[Float64s] = field(default_factory=list)

    def columns(self) -> tuple[Int64s, Float64s, Float64s]:
        """(moments, predictions, delays)."""
        return np.concatenate(self.event_ms), np.concatenate(self.predicted), np.concatenate(self.delays)


class Replay:
    """`run` it up to a day, as often as one likes; `close` it. `on_day(day)` is called after each.

    `on_rollout` is called with each rollout that ends, promoted or rolled back, before the next request.
    """

    def __init__(
        self,
        plan: Plan,
        stream: Stream,
        tables: Tables,
        service: Service,
        door: Door,
        on_rollout: Callable[[Passed], None],
        on_day: Callable[[date], None] = lambda day: None,
    ) -> None:
        self.served = Served()
        self.requests = 0
        self._plan, self._stream, self._tables = plan, stream, tables
        self._service, self._door = service, door
        self._on_rollout, self._on_day = on_rollout, on_day
        self._http = httpx2.Client(trust_env=False, timeout=_REQUEST_S)
        self._labels: deque[tuple[int, str, Float64s]] = deque()
        self._answered: set[str] = set()
        self._rollout_since: float | None = None
        self._lost = 0

    def close(self) -> None:
        self._http.close()

    @property
    def is_rolling_out(self) -> bool:
        return self._rollout_since is not None

    def run(self, days: list[date], until: Callable[[], bool] = lambda: False) -> int:
        """Replays these days, or up to the one after which `until` holds; how many. Raises GlowplugError."""
        for count, day in enumerate(days, start=1):
            self._tables.reach(day)
            self._day(day)
            self._on_day(day)
            if until():
                return count
        return len(days)

    def expect_rollout(self, after: float) -> None:
        """A version was deployed after `after`: waits until its canary has requests coming, and sends small ones."""
        ended = self._door.wait(
            lambda: bool(self._ends(after) or self._door.passed(ADVANCED, after=after)), _CANARY_S
        )
        if not ended:
            raise GlowplugError(
                f"no canary after {_CANARY_S:.0f} s", hint=f"glowplug rollout status {self._service.name}"
            )
        self._rollout_since = after

    def _day(self, day: date) -> None:
        start = midnight_ms(day)
        # In parts of a quarter, so that what happens on a day is seen on that day.
        for part in range(4):
            begin, end = start + part * DAY_MS // 4, start + (part + 1) * DAY_MS // 4
            self._door.now_ms = begin
            self._send_labels(begin)
            place = begin
            while place < end:
                # A rollout may begin and end at any hour: the size of the requests follows.
                stop = min(place + DAY_MS // 24, end) if self.is_rolling_out else end
                rows = self._plan.rows_in_rollout if self.is_rolling_out else self._plan.rows_a_request
                for batch in self._stream.between(place, stop, rows, f"{day}-{place}"):
                    self._ask(batch)
                self._follow_rollout()
                place = stop
            self._counted()
            self._wait_for_runs()

    def _ask(self, batch: Batch) -> None:
        self._door.now_ms = int(batch.event_ms[0])
        url = f"{self._service.url}/v2/models/{self._service.name}/infer"
        answer = self._http.post(url, content=orjson.dumps(batch.body()), headers=_HEADERS)
        if answer.status_code != 200:
            raise GlowplugError(f"request {batch.id}: {answer.status_code} {answer.text[:500]}")
        self.requests += 1
        self.served.event_ms.append(batch.event_ms)
        self.served.predicted.append(np.asarray(answer.json()["outputs"][0]["data"], dtype=np.float64))
        self.served.delays.append(batch.delays)
        due = int(batch.event_ms[0]) + self._plan.label_days * DAY_MS
        self._labels.append((due, batch.id, batch.delays))

    def _send_labels(self, now_ms: int) -> None:
        while self._labels and self._labels[0][0] <= now_ms:
            due, id, delays = self._labels.popleft()
            attributes: dict[str, Any] = {
                "specversion": "1.0", "id": f"label-{id}", "source": "/glowplug/flights/arrivals", "type": LABEL,
                "subject": id, "time": moment(due / 1000), "datacontenttype": "application/json",
            }  # fmt: skip
            data = {
                "inferenceservice": self._service.name, "namespace": self._service.namespace, "labels": delays.tolist(),
            }  # fmt: skip
            status = self._door.send(CloudEvent(attributes, orjson.dumps(data)))
            if status >= 300:
                raise GlowplugError(f"the Broker answers {status} to the labels of {id}")

    def _counted(self) -> None:
        """Returns when the detector has counted what was asked: it must not fall behind a clock that is so fast."""
        ends = time.monotonic() + _COUNTED_S
        while self._detector_requests() < self.requests - self._lost:
            if time.monotonic() > ends:
                # A logger may drop what nobody takes in time; that is said, and not waited for again.
                self._lost = self.requests - self._detector_requests()
                return
            time.sleep(_LOOK_S)

    def _detector_requests(self) -> int:
        page = self._http.get(f"{self._service.detector}/metrics").text
        found = 0
        for line in page.splitlines():
            if line.startswith("glowplug_drift_events_total{") and 'outcome="request"' in line:
                found = int(float(line.rpartition(" ")[2]))
        return found

    def _wait_for_runs(self) -> None:
        """Stands still while a run is at work; where it has deployed, until its canary is there."""
        for asked in self._door.passed(DRIFT):
            if asked.id in self._answered:
                continue
            self._answered.add(asked.id)
            answer = self.answer_to(asked.id)
            if answer.type == FINISHED and answer.data.get("outcome") == "deployed":
                self.expect_rollout(asked.wall)

    def answer_to(self, id: str) -> Passed:
        """How the run that the event `id` asked for ended. Raises GlowplugError where it does not."""

        def answers() -> list[Passed]:
            found = self._door.passed(FINISHED, FAILED, SKIPPED)
            return [each for each in found if (each.data.get("trigger") or {}).get("id") == id]

        if not self._door.wait(lambda: bool(answers()), _RUN_S):
            raise GlowplugError(
                f"the event {id} was not answered within {_RUN_S:.0f} s",
                hint="glowplug logs of the Job retrain-…",
            )
        return answers()[-1]

    def _follow_rollout(self) -> None:
        if self._rollout_since is None:
            return
        ended = self._ends(self._rollout_since)
        if ended:
            self._rollout_since = None
            self._on_rollout(ended[-1])

    def _ends(self, after: float) -> list[Passed]:
        return self._door.passed(PROMOTED, ROLLED_BACK, after=after)
