"""Events on this machine: the broker, the JobSinks on its port, Kafka, and what PingSources send.

The control loops drive it (`glowplug.controllers.eventing.engine`). A Trigger is passed on to the broker only once the
loops have looked at everything that there is: until then an address may be one of the machine's previous life.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from glowplug.apiserver.server import State
from glowplug.broker import Broker, BrokerConfig
from glowplug.broker.http_client import HttpClient
from glowplug.broker.verdict import Answer
from glowplug.controllers.eventing.broker import is_local
from glowplug.controllers.eventing.engine import KafkaState
from glowplug.controllers.eventing.kafkabroker import is_kafka
from glowplug.local.jobsinks import PREFIX, JobSinks
from glowplug.local.kafka_brokers import KafkaBrokers
from glowplug.local.kafka_sources import KafkaSources
from glowplug.spec.eventing import BrokerSpec, Destination, TriggerSpec, parse_broker
from glowplug.spec.kafka import KafkaSourceSpec, Topic
from glowplug.spec.kafka_security import Cluster
from glowplug.spec.kinds import BROKER, KAFKA_SOURCE, TRIGGER, Kind

_LOG = logging.getLogger(__name__)
# As Knative's PingSource: five more tries within two seconds, and then the event is lost.
_PING_RETRIES = 5
_PING_FIRST_WAIT_S = 0.05
_PING_TIMEOUT_S = 30.0
_PING_ANSWER_BYTES = 64 * 1024

Object = dict[str, Any]
Name = tuple[str, str]


class Recorder(Protocol):
    """Writes an Event."""

    def __call__(self, regarding: Object, type: str, reason: str, message: str) -> None: ...


class Eventing:
    """The event engine of the machine. `run` it before the control loops, `settle` it when they have settled."""

    def __init__(self, state: State, directory: Path, port: int) -> None:
        self._record: Recorder = state.recorder
        self._client = HttpClient(_PING_ANSWER_BYTES)
        config = BrokerConfig(directory, port=port)
        # What a subscriber answers with is an event of any size that a Broker takes.
        self._kafka_client = HttpClient(config.max_body_bytes)
        self.wake: Callable[[Kind, str, str], None] = lambda kind, namespace, name: None
        self._sources = KafkaSources(
            self._address, self._kafka_client, lambda *name: self.wake(KAFKA_SOURCE, *name)
        )
        self._kafka = KafkaBrokers(
            self._address,
            self._kafka_client,
            lambda *name: self.wake(BROKER, *name),
            lambda *name: self.wake(TRIGGER, *name),
        )
        self._broker = Broker(
            config,
            self._address,
            front=lambda ingress: JobSinks(state.requests, self._kafka.front(ingress)),
        )
        for obj in state.objects.list(BROKER):
            # Whoever finds the port open finds the Brokers that there are.
            if is_local(obj):
                self._broker.set_broker(parse_broker(obj))
            elif is_kafka(obj):
                self._kafka.expect((obj["metadata"]["namespace"], obj["metadata"]["name"]))
        self._addresses: dict[str, Mapping[Destination, str]] = {}
        self._known: dict[Destination, str] = {}
        self._waiting: dict[Name, TriggerSpec] = {}
        self._is_settled = False
        self._tasks: TaskGroup | None = None

    @property
    def port(self) -> int:
        """The port, the real one once it runs."""
        return self._broker.port

    @property
    def url(self) -> str:
        """What the URLs of Brokers begin with."""
        return f"http://127.0.0.1:{self.port}"

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; started when it listens. Raises what `Broker.run` raises."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._broker.run, name="broker")
            self._tasks = tasks
            self._kafka.begin(tasks)
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                self._tasks = None
                self._client.close()
                tasks.cancel_scope.cancel()
        # Once all that reads is drained.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._end_kafka)
        self._kafka_client.close()

    def _end_kafka(self) -> None:
        self._sources.end()
        self._kafka.end()

    async def settle(self, is_complete: bool) -> None:
        """The control loops have said all that there is; if they have, the broker may forget everything else."""
        self._is_settled = True
        for spec in self._waiting.values():
            self._broker.set_trigger(spec)
        self._waiting.clear()
        self._kafka.settle()
        if self._tasks is not None:
            self._sources.begin(self._tasks)
        if is_complete:
            await self._broker.forget_others()

    def metrics(self) -> str:
        """Prometheus' text form."""
        page = self._broker.metrics(self._kafka.broker_counts(), self._kafka.trigger_counts())
        return page + "".join(self._sources.metrics())

    def pages(self) -> dict[str, Callable[[tuple[str, ...]], Awaitable[str | None]]]:
        """Pages beside the API, by name: what is in the log."""
        return {"events": self._broker.pages.events, "dead-letters": self._broker.pages.dead_letters}

    # What the control loops say.

    def set_broker(self, spec: BrokerSpec) -> None:
        self._broker.set_broker(spec)

    def remove_broker(self, namespace: str, name: str) -> None:
        self._broker.remove_broker(namespace, name)
        self._kafka.remove_broker(namespace, name)

    def set_kafka_broker(self, spec: BrokerSpec, cluster: Cluster, topic: Topic) -> KafkaState:
        return self._kafka.set_broker(spec, cluster, topic)

    def hold_kafka_broker(self, namespace: str, name: str) -> None:
        self._kafka.expect((namespace, name))

    def end_kafka_broker(
        self, namespace: str, name: str, cluster: Cluster | None, topic: Topic
    ) -> KafkaState:
        return self._kafka.end_broker((namespace, name), cluster, topic)

    def set_kafka_source(self, spec: KafkaSourceSpec, cluster: Cluster) -> KafkaState:
        return self._sources.set(spec, cluster)

    def remove_kafka_source(self, namespace: str, name: str) -> None:
        self._sources.remove(namespace, name)

    def set_trigger(self, spec: TriggerSpec) -> KafkaState | None:
        if self._kafka.has((spec.namespace, spec.broker)):
            return self._kafka.set_trigger(spec)
        if self._is_settled:
            self._broker.set_trigger(spec)
        else:
            self._waiting[spec.namespace, spec.name] = spec
        return None

    def remove_trigger(self, namespace: str, name: str) -> None:
        self._waiting.pop((namespace, name), None)
        self._broker.remove_trigger(namespace, name)
        self._kafka.remove_trigger(namespace, name)

    def broker_url(self, namespace: str, name: str) -> str:
        return self._broker.url(namespace, name)

    def job_sink_url(self, namespace: str, name: str) -> str:
        return f"{self.url}{PREFIX}{namespace}/{name}"

    def set_addresses(self, owner: str, addresses: Mapping[Destination, str]) -> None:
        if addresses == self._addresses.get(owner, {}):
            return
        if addresses:
            self._addresses[owner] = dict(addresses)
        else:
            self._addresses.pop(owner, None)
        # Two may name one destination, which is at the same place for both.
        self._known = {place: url for each in self._addresses.values() for place, url in each.items()}

    def post(self, source: Object, url: str, headers: Mapping[str, str], body: bytes) -> None:
        if self._tasks is not None:
            name = f"event of {source['kind']} {source['metadata']['name']}"
            self._tasks.start_soon(self._post, source, url, headers, body, name=name)

    def _address(self, destination: Destination) -> str | None:
        return self._known.get(destination)

    async def _post(self, source: Object, url: str, headers: Mapping[str, str], body: bytes) -> None:
        answer = await self._client.post(url, headers, body, _PING_TIMEOUT_S)
        for turn in range(_PING_RETRIES):
            if _is_taken(answer):
                return
            await anyio.sleep(_PING_FIRST_WAIT_S * 2.0**turn)
            answer = await self._client.post(url, headers, body, _PING_TIMEOUT_S)
        if _is_taken(answer):
            return
        said = f"it answers {answer.status}" if answer.status else answer.body.decode(errors="replace")
        try:
            self._record(source, "Warning", "SendFailed", f"the event was not taken by {url}: {said}")
        except Exception:
            _LOG.exception("an event of %s was not taken by %s: %s", source["metadata"]["name"], url, said)


def _is_taken(answer: Answer) -> bool:
    return 200 <= answer.status < 300
