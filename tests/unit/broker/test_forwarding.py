"""Events that somebody else keeps: one schedule for the subscriber, one for the dead letter sink, and an end."""

from __future__ import annotations

from dataclasses import dataclass, field

from glowplug.broker.forwarding import Forwarder
from glowplug.broker.verdict import Again, Answer
from glowplug.errors import TooLarge
from glowplug.spec.eventing import Backoff, Delivery
from glowplug.wire.events import CloudEvent

SINK, DEAD = "http://sink/", "http://dead/"
EVENT = CloudEvent({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "hops": "3"}, b"x")


@dataclass
class Posts:
    """Answers with a status for each URL, and keeps what was sent."""

    statuses: dict[str, int]
    sent: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    reply: dict[str, str] = field(default_factory=dict)

    async def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Answer:
        self.sent.append((url, headers))
        return Answer(self.statuses[url], self.reply)


@dataclass
class Way:
    delivery: Delivery = field(default_factory=lambda: Delivery(2, Backoff.LINEAR, 0.0))
    sink: str | None = SINK
    dead: str | None = DEAD

    def subscriber(self) -> str | None:
        return self.sink

    def has_dead_letter(self) -> bool:
        return self.dead is not None

    def dead_letter(self) -> str | None:
        return self.dead


async def to_the_end(forwarder: Forwarder, attempts: int = 0) -> None:
    last: Again | None = await forwarder.handle(EVENT, attempts, None)
    while last is not None:
        last = await forwarder.handle(EVENT, last.attempts, last)


async def test_the_schedule_is_one_and_has_an_end() -> None:
    posts, buried = Posts({SINK: 503, DEAD: 500}), []

    async def bury(event: CloudEvent) -> None:
        buried.append(event)

    forwarder = Forwarder(Way(), posts, timeout_s=1.0, bury=bury)
    await to_the_end(forwarder)
    assert [url for url, _ in posts.sent] == [SINK] * 3 + [DEAD] * 3
    dead = posts.sent[-1][1]
    assert (dead["ce-knativeerrorcode"], dead["ce-knativeerrordest"]) == ("503", SINK)
    assert [event.text("knativeerrorcode") for event in buried] == ["503"]
    counts = forwarder.counts
    assert (counts.delivered, counts.dead_lettered, counts.undeliverable) == (0, 1, 1)


async def test_a_refusal_is_a_dead_letter_at_once() -> None:
    posts = Posts({SINK: 400, DEAD: 202})
    await to_the_end(Forwarder(Way(), posts, timeout_s=1.0))
    assert [url for url, _ in posts.sent] == [SINK, DEAD]


async def test_another_process_counts_on() -> None:
    for attempts, wanted in ((2, [SINK, DEAD, DEAD, DEAD]), (3, [DEAD] * 3), (5, [DEAD])):
        posts = Posts({SINK: 503, DEAD: 503})
        await to_the_end(Forwarder(Way(), posts, timeout_s=1.0), attempts)
        assert [url for url, _ in posts.sent] == wanted


async def test_a_sink_without_an_address_is_waited_for_by_the_schedule() -> None:
    way = Way(sink=None)
    last = await Forwarder(way, Posts({}), timeout_s=1.0).handle(EVENT, 0, None)
    assert last is not None and last.attempts == 1


async def test_a_reply_is_handed_over_and_one_too_many_is_a_dead_letter() -> None:
    posts = Posts({SINK: 200, DEAD: 202})
    posts.reply = {"ce-specversion": "1.0", "ce-id": "r", "ce-source": "/s", "ce-type": "answer"}
    got: list[tuple[str, str]] = []

    async def reply(answer: CloudEvent, to: CloudEvent) -> bool:
        got.append((answer.text("id"), to.text("hops")))
        return len(got) < 2

    forwarder = Forwarder(Way(), posts, timeout_s=1.0, reply=reply, without=("hops",), namespace="n")
    await to_the_end(forwarder)
    assert got == [("r", "3")] and [url for url, _ in posts.sent] == [SINK]
    assert "ce-hops" not in posts.sent[0][1]
    assert (posts.sent[0][1]["prefer"], posts.sent[0][1]["kn-namespace"]) == ("reply", "n")
    await to_the_end(forwarder)
    assert [url for url, _ in posts.sent] == [SINK, SINK, DEAD]


async def test_a_reply_that_can_never_be_kept_is_a_dead_letter() -> None:
    posts = Posts({SINK: 200, DEAD: 202})
    posts.reply = {"ce-specversion": "1.0", "ce-id": "r", "ce-source": "/s", "ce-type": "answer"}

    async def reply(answer: CloudEvent, to: CloudEvent) -> bool:
        raise TooLarge("the event is larger than what topic t takes")

    await to_the_end(Forwarder(Way(), posts, timeout_s=1.0, reply=reply))
    assert [url for url, _ in posts.sent] == [SINK, DEAD]
    assert posts.sent[1][1]["ce-knativeerrorcode"] == "413"
