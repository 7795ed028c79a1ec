"""What a detector is sent by somebody careless, or worse: nothing of it may stop it, or make it grow without end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import anyio
import numpy as np
import orjson
import pytest
from unit.drift.streams import T0, label, predicted, profile, request, response, rows

from glowplug.drift.config import DriftConfig
from glowplug.drift.detector import Detector, Memory, Target
from glowplug.drift.payloads import MAX_LABEL
from glowplug.drift.profile import Profile
from glowplug.drift.service import Service, ServiceConfig
from glowplug.drift.store import Store
from glowplug.wire.events import CloudEvent, EventProblem, structured_json

SECONDS = DriftConfig(window_s=50.0, slots=5, min_rows=10, needed=1, of=1, calm=1)


@pytest.fixture(scope="module")
def reference() -> Profile:
    return profile(1000)


@pytest.fixture
def store() -> Iterator[Store]:
    found = Store(None)
    yield found
    found.close()


def detector_of(
    store: Store, reference: Profile, config: DriftConfig = SECONDS, memory: Memory | None = None
) -> Detector:
    return Detector(Target("default", "flights", "flights"), reference, config, store, memory)


def take(detector: Detector, store: Store, *events: CloudEvent, now: float = T0 + 1e9) -> list[str]:
    """As the service does it, and what a restart would find is read again."""
    with store.transaction():
        outcomes = [detector.take(event, now) for event in events]
        detector.save()
    detector.load()
    return outcomes


def some(count: int = 5) -> np.ndarray:
    return rows(np.random.default_rng(1), count)


def test_a_revision_nested_a_hundred_thousand_deep_is_none(store: Store, reference: Profile) -> None:
    detector = detector_of(store, reference)
    assert take(detector, store, request("a", T0, some(), metadata="[" * 100_000)) == ["request"]


@pytest.mark.parametrize("value", [1e300, -1e308, MAX_LABEL * 1.01])
def test_a_label_whose_square_is_infinite_is_refused(store: Store, reference: Profile, value: float) -> None:
    detector = detector_of(store, reference)
    take(detector, store, response("a", T0, predicted(some())))
    with pytest.raises(EventProblem, match=r"labels\[0\]"):
        take(detector, store, label("a", T0 + 1, [value, 0, 0, 0, 0]))
    take(detector, store, label("a", T0 + 1, [MAX_LABEL, 0, 0, 0, 0]), label("a", T0 + 2, [None] * 5))
    count, _, squares = detector.losses[""]
    assert count == 5 and np.isfinite(squares)


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "soon"]
)
def test_a_time_at_the_calendars_end_is_taken_and_what_follows_is_judged(
    store: Store, reference: Profile, time: str
) -> None:
    detector = detector_of(store, reference)
    strange = request("a", T0, some()).with_attributes(time=time)
    assert take(detector, store, strange, now=T0) == ["request"]
    for number in range(1, 120):
        take(detector, store, request(f"b{number}", T0 + number, some() + 5), now=T0 + number)
    assert detector.counts["episodes"] == 1


def test_a_clock_that_was_a_year_ahead_does_not_stop_the_judging(store: Store, reference: Profile) -> None:
    detector = detector_of(store, reference)
    ahead = T0 + 365 * 86400
    take(detector, store, request("ahead", ahead, some()), now=ahead)
    for number in range(120):
        take(detector, store, request(f"{number}", T0 + number, some()), now=T0 + number)
    judged = detector.counts["windows"]
    assert judged >= 7
    # A few seconds back are no such thing.
    take(detector, store, request("back", T0 + 112, some()), now=T0 + 112)
    assert detector.counts["windows"] == judged


def test_revisions_without_end_are_not_kept(store: Store, reference: Profile) -> None:
    detector = detector_of(store, reference)
    for number in range(150):
        metadata = orjson.dumps({"Knative-Serving-Revision": [f"r-{number}"]}).decode()
        take(
            detector, store, response(f"a{number}", T0, predicted(some()), metadata=metadata),
            label(f"a{number}", T0, [0.0] * 5),
        )  # fmt: skip
    assert len(detector.losses) == 100 and "r-149" in detector.losses and "r-49" not in detector.losses


def test_labels_of_unknown_requests_take_so_many_bytes_and_no_more(store: Store, reference: Profile) -> None:
    detector = detector_of(store, reference, memory=Memory(early_bytes=100_000))
    for number in range(50):
        assert take(detector, store, label(f"u{number}", T0, [0.0] * 1000)) == ["label_early"]
    assert store.count_waiting() == (0, 12)
    # The newest are known still, by an id of any length.
    take(detector, store, label("long" * 10_000, T0, [0.0] * 5))
    outcomes = take(
        detector, store, response("u49", T0, np.zeros(1000, np.float32)),
        response("long" * 10_000, T0, predicted(some())),
    )  # fmt: skip
    assert outcomes == ["response", "response"] and detector.losses[""][0] == 1005
    assert store.count_waiting() == (0, 11)


def test_an_event_that_the_sink_refuses_holds_up_no_other(store: Store, reference: Profile) -> None:
    """As long as it is refused it is tried again; what was taken is sent once."""
    with store.transaction():
        for id in ("one", "two"):
            event = {"specversion": "1.0", "id": id, "source": "/s", "type": "t"}
            store.post(id, structured_json(CloudEvent(event, b"{}")))
    posted: list[str] = []
    seen_all = asyncio.Event()

    async def post(headers: Mapping[str, str], body: bytes) -> int:
        posted.append(headers["ce-id"])
        if posted.count("one") == 3:
            seen_all.set()
            return 202
        return 202 if headers["ce-id"] == "two" else 400

    service = Service(
        detector_of(store, reference), store, post, lambda: reference, ServiceConfig(first_pause_s=0.001)
    )

    async def act() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run)
            with anyio.fail_after(30):
                await seen_all.wait()
                while store.posted():  # noqa: ASYNC110 - another thread deletes it
                    await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()

    asyncio.run(act())
    assert posted == ["one", "two", "one", "one"]
