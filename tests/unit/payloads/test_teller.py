"""What waits, what is sent and how often, what is dropped; with a client that answers as it is told."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import anyio

from glowplug.copies.copies import GivenUp
from glowplug.copies.exchange import Exchange, Message
from glowplug.payloads.config import PayloadsConfig
from glowplug.payloads.ledger import Ledger
from glowplug.payloads.report import notices_of, report_line
from glowplug.payloads.tally import Component, Outcome, Tally
from glowplug.payloads.teller import Sink, Teller
from glowplug.payloads.waiting import Lines
from glowplug.spec import names
from glowplug.spec.logger import Logger
from glowplug.wire.events import decode

LOGGER = Logger("flights", "default", "predictor", "flights-00001", "http://sink/")
REQUEST = {":method": "POST", ":path": "/v2/models/flights/infer"}
CONFIG = PayloadsConfig(backoff_s=0.0, linger_s=0.0, drain_s=30.0)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""


class Client:
    """Keeps what it posts; answers with the statuses in turn, then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.posted: list[tuple[str, Mapping[str, str], bytes]] = []
        self.is_open = anyio.Event()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answer:
        self.posted.append((url, headers, body))
        await self.is_open.wait()
        return Answer(self.statuses.pop(0) if self.statuses else 200, b"said")


class Lab:
    """A teller that runs, and what it counts."""

    def __init__(self, client: Client, config: PayloadsConfig = CONFIG, *, is_batched: bool = False) -> None:
        self.client, self.tally, self.lines = client, Tally(config), Lines(config)
        self.teller = Teller(
            config, client, self.tally, self.lines, lambda namespace, url: Sink(url, is_batched)
        )

    def outcomes(self, logger: Logger = LOGGER) -> dict[str, int]:
        counts = self.tally.counts.get(Component(logger.namespace, logger.service, logger.component))
        return {outcome.value: n for outcome, n in counts.outcomes.items()} if counts else {}

    def copy(self, body: bytes = b"{}", logger: Logger = LOGGER) -> bool:
        told = {names.COPY_LOGGER: logger.to_text()}
        if not self.teller.wants(told, REQUEST):
            return False
        self.teller.copied(Exchange(told, Message(REQUEST, body), Message({":status": "200"}, body)))
        return True

    async def run(self, act: Callable[[], Awaitable[None]]) -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.teller.run)
                await anyio.wait_all_tasks_blocked()
                await act()
                tasks.cancel_scope.cancel()


async def test_events_are_sent_one_by_one_or_in_batches() -> None:
    for is_batched in (False, True):
        lab = Lab(Client(), is_batched=is_batched)

        async def act(lab: Lab = lab) -> None:
            lab.client.is_open.set()
            for number in range(3):
                lab.copy(b'{"n":%d}' % number)
            await lab.teller.drain()

        await lab.run(act)
        events = [event for _, headers, body in lab.client.posted for event in decode(headers, body)]
        assert sorted(json.loads(event.data or b"")["n"] for event in events) == [0, 0, 1, 1, 2, 2]
        assert len(lab.client.posted) == (1 if is_batched else 6)
        assert lab.outcomes() == {"delivered": 6} and lab.lines.bytes == 0


async def test_what_may_go_better_is_sent_again_and_no_more_than_that() -> None:
    only_requests = replace(LOGGER, mode="request")
    for statuses, posts, outcome in (
        ((503, 0, 200), 3, "delivered"),
        ((503, 429, 500), 3, "failed"),
        ((404,), 1, "refused"),
        ((302,), 1, "refused"),
    ):
        lab = Lab(Client(*statuses))

        async def act(lab: Lab = lab) -> None:
            lab.client.is_open.set()
            lab.copy(logger=only_requests)
            await lab.teller.drain()

        await lab.run(act)
        assert (len(lab.client.posted), lab.outcomes()) == (posts, {outcome: 1})


async def test_a_sink_that_hangs_is_bounded_in_number_and_bytes_and_holds_up_no_other() -> None:
    for config, body in (
        (replace(CONFIG, max_waiting=10), b"{}"),
        (replace(CONFIG, max_waiting_bytes=50_000), b"x" * 3_000),
    ):
        lab = Lab(Client(), config)
        elsewhere = replace(LOGGER, service="other", url="http://other/")

        async def act(
            lab: Lab = lab, body: bytes = body, config: PayloadsConfig = config, other: Logger = elsewhere
        ) -> None:
            while lab.copy(body):
                await anyio.wait_all_tasks_blocked()
            assert not lab.copy(body)
            assert len(lab.client.posted) == config.concurrency
            assert len(lab.lines) <= config.max_waiting
            assert lab.lines.bytes <= config.max_waiting_bytes + 2 * 6_000
            if config.max_waiting == 10:
                assert lab.copy(body, other)
                await anyio.wait_all_tasks_blocked()
                assert lab.client.posted[-1][0] == "http://other/"
            # Of each exchange that is not even copied, both events.
            assert lab.outcomes()["dropped"] >= 4
            lab.client.is_open.set()
            await lab.teller.drain()
            assert lab.outcomes()["delivered"] > 0 and lab.lines.bytes == 0

        await lab.run(act)


def test_only_what_asks_for_an_answer_is_told_of() -> None:
    lab = Lab(Client())
    told = {names.COPY_LOGGER: LOGGER.to_text()}
    assert not lab.teller.wants(told, {**REQUEST, ":method": "GET"})
    assert not lab.teller.wants({}, REQUEST)
    assert not lab.teller.wants(told, {**REQUEST, names.SHADOW_HEADER: "x"})
    assert lab.outcomes() == {}


def test_what_will_not_come_is_counted() -> None:
    lab = Lab(Client())
    for why in GivenUp:
        lab.teller.given_up({names.COPY_LOGGER: LOGGER.to_text()}, why)
    assert lab.outcomes() == {"too_large": 2, "dropped": 2, "cut": 2}


def test_a_loss_is_told_of_once_a_minute_and_added_up() -> None:
    tally = Tally(CONFIG)
    tally.add(LOGGER, Outcome.DELIVERED, 5)
    tally.add(LOGGER, Outcome.CUT, 5)
    assert not list(tally.notices(0.0))
    tally.add(LOGGER, Outcome.FAILED, 1, "it hangs")
    assert [notice.text for notice in tally.notices(0.0)] == [
        "1 payload event was lost; the last one: it hangs"
    ]
    tally.add(LOGGER, Outcome.DROPPED, 2, "too many wait")
    tally.add(LOGGER, Outcome.REFUSED, 1, "no")
    assert not list(tally.notices(59.9))
    (notice,) = tally.notices(60.0)
    assert (notice.lost, notice.why, notice.service) == (3, "no", "flights")
    assert not list(tally.notices(1000.0))


def test_the_report_is_one_line_and_becomes_metrics() -> None:
    tally, lines = Tally(CONFIG), Lines(CONFIG)
    tally.add(LOGGER, Outcome.DELIVERED, 5)
    tally.add(LOGGER, Outcome.DROPPED, 2, "a\nb")
    line = report_line(tally, lines, tally.notices(0.0))
    assert line.count(b"\n") == 1
    report = json.loads(line)
    assert [notice.lost for notice in notices_of(report)] == [2]
    ledger = Ledger(10)
    assert ledger.metrics(7) == ""
    ledger.report(report)
    labels = 'namespace="default",inferenceservice="flights",component="predictor"'
    assert f'glowplug_payload_events_total{{{labels},outcome="dropped"}} 2\n' in ledger.metrics(0)
    assert 'glowplug_payload_events_total{outcome="uncopied"} 7\n' in ledger.metrics(7)
    assert 'uncopied"' not in ledger.metrics(None)
    assert "glowplug_payload_events_waiting 0\n" in ledger.metrics(0)


def test_what_a_killed_process_held_is_lost_and_its_counts_are_kept() -> None:
    lab = Lab(Client())
    ledger = Ledger(2)
    events = (
        'glowplug_payload_events_total{namespace="default",inferenceservice="flights",component="predictor",'
    )

    async def act() -> None:
        lab.tally.add(LOGGER, Outcome.DELIVERED, 5)
        for _ in range(3):
            lab.copy()
        await anyio.wait_all_tasks_blocked()
        # Two of the six are in line, four on their way: none of them has an outcome.
        assert len(lab.lines) == 2
        ledger.report(json.loads(report_line(lab.tally, lab.lines, ())))
        lab.client.is_open.set()
        await lab.teller.drain()
        assert lab.tally.counts[Component("default", "flights", "predictor")].open == 0

    anyio.run(lab.run, act)
    (notice,) = ledger.ended()
    assert (notice.lost, notice.service) == (6, "flights") and "process ended" in notice.why
    assert not list(ledger.ended())
    ledger.report({"components": [], "waiting": {"events": 0, "bytes": 0}, "notices": []})
    assert f'{events}outcome="lost"}} 6\n' in ledger.metrics(0)
    again = {"namespace": "default", "service": "flights", "component": "predictor"}
    ledger.report({"components": [{**again, "outcomes": {"delivered": 2}, "open": 0}], "waiting": {}})
    assert f'{events}outcome="delivered"}} 7\n' in ledger.metrics(0)
    for name in ("b", "c"):
        ledger.report({"components": [{**again, "service": name, "outcomes": {}, "open": 1}]})
        list(ledger.ended())
    # Bounded: the oldest are forgotten.
    assert "flights" not in ledger.metrics(0) and 'inferenceservice="c"' in ledger.metrics(0)
