"""The Kafka source's program against a real Kafka: kills of either, poison, members that come and go."""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
from collections.abc import Callable, Iterator

import pytest
from local.broker_lab import Sink, serving, until
from local.kafka_lab import KafkaLab, SourceLab, needs_kafka
from local.kafka_secrets import Auth, Auths

pytestmark = needs_kafka
EVENTS = 20_000
_DELIVERY = {"retry": 2, "backoffPolicy": "linear", "backoffDelay": "PT0.05S"}
# As long as a sink is down or Kafka is: what the kills are about is not to end as dead letters.
_LONG = json.dumps({**_DELIVERY, "retry": 500})


@pytest.fixture
def sources(kafka: KafkaLab, tmp_path: pathlib.Path) -> Iterator[Callable[..., SourceLab]]:
    """Makes the source's processes, and ends what is left of them."""
    made: list[SourceLab] = []

    def make(topic: str, sink: Sink, **environment: str) -> SourceLab:
        made.append(SourceLab(kafka, tmp_path / str(len(made)), topic, sink.url, **environment))
        return made[-1]

    yield make
    for source in made:
        source.end()


def keeping(seen: set[bytes]) -> Callable[[dict[str, str], bytes], int]:
    """A sink's behaviour: it takes everything, and notes what it has."""

    def behaviour(headers: dict[str, str], body: bytes) -> int:
        seen.add(body)
        return 202

    return behaviour


async def in_thread(work: object, *arguments: object) -> object:
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)  # type: ignore[arg-type]


async def test_nothing_is_lost_when_kafka_and_the_source_are_killed_in_turn(
    kafka: KafkaLab, sources: Callable[..., SourceLab], record_property: pytest.RecordProperty
) -> None:
    kafka.topic("kills")
    seen: set[bytes] = set()
    sink = Sink(keeping(seen))
    async with serving(sink):
        source = sources("kills", sink, KAFKA_ORDERING="unordered", KAFKA_DELIVERY=_LONG)
        producing = asyncio.create_task(
            in_thread(kafka.produce, "kills", [b"%d" % each for each in range(EVENTS)])
        )
        source.up()
        for turn in range(4):
            await sink.until(lambda found, least=(turn + 1) * EVENTS // 6: len(seen) > least)
            victim = source if turn % 2 else kafka
            await in_thread(victim.end)
            await in_thread(victim.up)
        await producing
        await until(lambda: len(seen) >= EVENTS)
        assert await in_thread(source.end, signal.SIGTERM) == 0
    assert {int(body) for body in sink.bodies} == set(range(EVENTS))
    duplicates = len(sink.bodies) - EVENTS
    record_property("duplicates", duplicates)
    print(f"{duplicates} duplicates of {EVENTS} events after 4 kills")
    # What was under way at a kill, and what was over and not yet committed; not whole partitions.
    assert duplicates < EVENTS // 4
    committed = await in_thread(kafka.committed, "group-kills", "kills")
    assert sum(offset for offset, _ in committed) == EVENTS  # type: ignore[union-attr]


async def test_poison_is_a_dead_letter_after_one_schedule_and_holds_up_nothing(
    kafka: KafkaLab, sources: Callable[..., SourceLab]
) -> None:
    for name in ("poison", "poison-dead"):
        kafka.topic(name, 1)

    def behaviour(headers: dict[str, str], body: bytes) -> int:
        return {b"slow": 503, b"wrong": 400}.get(body, 202)

    sink = Sink(behaviour)
    async with serving(sink):
        source = sources(
            "poison", sink, KAFKA_DELIVERY=json.dumps(_DELIVERY),
            KAFKA_DEAD_LETTER_TOPIC="poison-dead", NAMESPACE="flying", NAME="flights",
        )  # fmt: skip
        source.up()
        kafka.produce("poison", [b"first", b"slow", b"wrong", b"last"], key=b"B6")
        await sink.until(lambda found: b"last" in found.bodies)
        dead = await in_thread(kafka.records, "poison-dead", 2)
        assert await in_thread(source.end, signal.SIGTERM) == 0
    # In order, one schedule each, and a refusal is not tried again.
    assert sink.bodies == [b"first", b"slow", b"slow", b"slow", b"wrong", b"last"]
    assert [each.value() for each in dead] == [b"slow", b"wrong"]  # type: ignore[attr-defined]
    said = [dict(each.headers()) for each in dead]  # type: ignore[attr-defined]
    assert [each["ce_knativeerrorcode"] for each in said] == [b"503", b"400"]
    assert said[0]["ce_id"] == b"partition:0/offset:1"
    first = sink.got[0]
    assert first["ce-type"] == "dev.knative.kafka.event" and first["ce-key"] == "B6"
    assert first["ce-source"] == "/apis/v1/namespaces/flying/kafkasources/flights#poison"


async def test_attempts_are_counted_on_by_whoever_takes_the_partition_over(
    kafka: KafkaLab, sources: Callable[..., SourceLab]
) -> None:
    """One event is always refused, and the source is killed again and again: there is one schedule, not one each."""
    for name in ("counted", "counted-dead"):
        kafka.topic(name, 1)
    sink = Sink(lambda headers, body: 503 if body == b"poison" else 202)
    delivery = json.dumps({"retry": 12, "backoffPolicy": "linear", "backoffDelay": "PT0.03S"})
    async with serving(sink):
        source = sources(
            "counted", sink, KAFKA_DELIVERY=delivery, KAFKA_ORDERING="unordered",
            KAFKA_DEAD_LETTER_TOPIC="counted-dead",
        )  # fmt: skip
        kafka.produce("counted", [b"poison", *(b"%d" % each for each in range(50))])
        source.up()
        for least in (3, 6):
            await sink.until(lambda found, least=least: found.bodies.count(b"poison") >= least)
            await until(lambda least=least: _attempts(kafka) >= least - 1)
            await in_thread(source.end)
            source.up()
        dead = await in_thread(kafka.records, "counted-dead", 1)
        await sink.until(lambda found: {b"%d" % each for each in range(50)} <= set(found.bodies))
        assert await in_thread(source.end, signal.SIGTERM) == 0
    assert [each.value() for each in dead] == [b"poison"]  # type: ignore[attr-defined]
    # Thirteen by the schedule; an attempt at each kill may not have been written down.
    assert 13 <= sink.bodies.count(b"poison") <= 17


def _attempts(kafka: KafkaLab) -> int:
    ((_, metadata),) = kafka.committed("group-counted", "counted")
    numbers = json.loads(metadata or "[0]")
    return max(numbers[2::2], default=0)


async def test_members_that_come_and_go_lose_nothing(
    kafka: KafkaLab, sources: Callable[..., SourceLab]
) -> None:
    kafka.topic("members", 4)
    seen: set[bytes] = set()
    sink = Sink(keeping(seen), delay_s=0.002)
    count = 3000
    async with serving(sink):
        members = [
            sources("members", sink, KAFKA_DELIVERY=_LONG, KAFKA_ORDERING="unordered") for _ in range(2)
        ]
        members[0].up()
        producing = asyncio.create_task(
            in_thread(kafka.produce, "members", [b"%d" % each for each in range(count)])
        )
        await sink.until(lambda found: len(found.bodies) > count // 6)
        members[1].up()
        await sink.until(lambda found: len(found.bodies) > count // 2)
        assert await in_thread(members[0].end, signal.SIGTERM) == 0
        await producing
        await until(lambda: len(seen) >= count)
        assert await in_thread(members[1].end, signal.SIGTERM) == 0
    assert {int(body) for body in sink.bodies} == set(range(count))
    # Whoever gives a partition back has finished what was under way, and committed it.
    assert len(sink.bodies) - count < 200


async def test_it_reads_over_tls_and_as_a_user(
    kafka: KafkaLab, sources: Callable[..., SourceLab], tmp_path: pathlib.Path
) -> None:
    """A Secret of a Broker, mounted, or variables as of Knative's own adapter; each right once and wrong once."""
    kafka.topic("guarded-source", 1)
    kafka.produce("guarded-source", [b"one"])
    auths = Auths(kafka)
    sink = Sink()
    async with serving(sink):

        def started(name: str, auth: Auth, environment: dict[str, str]) -> SourceLab:
            source = sources(
                "guarded-source", sink, KAFKA_BOOTSTRAP_SERVERS=kafka.at(auth.way), NAME=name,
                KAFKA_CONSUMER_GROUP=f"source-{name}", **environment,
            )  # fmt: skip
            source.up()
            return source

        good, bad = auths.good, auths.bad
        right = [
            started("mutual", good["mutual"], _mounted(tmp_path / "a", good["mutual"])),
            started("scram", good["scram"], _variables(good["scram"])),
        ]
        wrong = {
            "wrong-scram": started(
                "wrong-scram", bad["wrong-scram"], _mounted(tmp_path / "b", bad["wrong-scram"])
            ),
            "wrong-ca": started("wrong-ca", bad["wrong-ca"], _variables(bad["wrong-ca"])),
        }
        await sink.until(lambda found: len(found.got) >= len(right))
        for name, source in wrong.items():
            await until(lambda name=name, source=source: bad[name].said in source.said())  # type: ignore[misc]
        for source in (*right, *wrong.values()):
            assert await in_thread(source.end, signal.SIGTERM) == 0
            assert not auths.leaked_in(source.said())
    assert sorted(each["ce-source"].rpartition("/")[2] for each in sink.got) == [
        "mutual#guarded-source", "scram#guarded-source",
    ]  # fmt: skip


def _mounted(folder: pathlib.Path, auth: Auth) -> dict[str, str]:
    folder.mkdir()
    for key, value in auth.data.items():
        (folder / key).write_text(value)
    return {"KAFKA_AUTH_DIR": str(folder)}


def _variables(auth: Auth) -> dict[str, str]:
    protocol, data = auth.data["protocol"], auth.data
    found = {
        "TLS_ENABLE": str(protocol.endswith("SSL")).lower(), "TLS_CA_CERT": data.get("ca.crt", ""),
        "SASL_ENABLE": str(protocol.startswith("SASL")).lower(), "SASL_TYPE": data.get("sasl.mechanism", ""),
        "SASL_USER": data.get("user", ""), "SASL_PASSWORD": data.get("password", ""),
    }  # fmt: skip
    return {f"KAFKA_NET_{name}": value for name, value in found.items()}
