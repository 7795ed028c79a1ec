"""A real Kafka (KRaft) as a plain Java process: to start, kill, write to and read from.

It listens once for each way to talk to it (`WAYS`), with certificates and users of its own.

Its jars come from Maven Central once, into `~/.cache/glowplug/kafka`. Where Java or Maven are missing, `needs_kafka`
skips and says so.
"""

from __future__ import annotations

import fcntl
import functools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import pytest
from local.kafka_certificates import Authority

from glowplug.spec.kafka_security import Cluster

VERSION = "4.1.0"
CACHE = (
    pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "glowplug" / "kafka" / VERSION
)
_FETCH_S = 300.0
_UP_S = 90.0
_JAVA = (
    "java", "-Xms224m", "-Xmx224m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:MaxMetaspaceSize=96m",
    "-Xss512k",
)  # fmt: skip
_PARTS = {
    "org.apache.kafka:kafka_2.13": VERSION,
    "org.apache.kafka:kafka-tools": VERSION,
    "org.apache.logging.log4j:log4j-slf4j-impl": "2.25.1",
    "org.apache.logging.log4j:log4j-core": "2.25.1",
}
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.glowplug</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
{}  </dependencies>
</project>
"""
_DEPENDENCY = """    <dependency>
      <groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>
    </dependency>
"""
USER, PASSWORD = "flights", "open-sesame"
PLAIN, SASL, TLS, MUTUAL, BOTH, EXPIRED = "PLAINTEXT", "SASL", "TLS", "MUTUAL", "BOTH", "EXPIRED"
# What it calls its listeners, and the protocol of each. `MUTUAL` asks clients for a certificate, `BOTH` for a user on
# top of TLS; the certificate of `EXPIRED` is no longer good.
WAYS = {
    PLAIN: "PLAINTEXT", SASL: "SASL_PLAINTEXT", TLS: "SSL", MUTUAL: "SSL", BOTH: "SASL_SSL", EXPIRED: "SSL",
}  # fmt: skip
_MODULES = "org.apache.kafka.common.security"
_LOG4J = """rootLogger.level=WARN
rootLogger.appenderRef.c.ref=c
appender.c.type=Console
appender.c.name=c
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d{HH:mm:ss,SSS} %p %c{1} %m%n
"""


def missing() -> str:
    """What a real Kafka needs and is not here; empty where all is."""
    absent = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if (CACHE / "libs" / "complete").exists():
        absent = [name for name in absent if name == "java"]
    return f"a real Kafka needs {' and '.join(absent)}, not found" if absent else ""


needs_kafka = pytest.mark.skipif(bool(missing()), reason=missing())


@functools.cache
def jars() -> pathlib.Path:
    """The folder of jars, fetched if need be; several processes may ask at once."""
    libs = CACHE / "libs"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (libs / "complete").exists():
            dependencies = (_DEPENDENCY.format(*name.split(":"), version) for name, version in _PARTS.items())
            (CACHE / "pom.xml").write_text(_POM.format("".join(dependencies)))
            goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
            command = ["mvn", "-q", "-B", "-f", str(CACHE / "pom.xml"), goal, f"-DoutputDirectory={libs}"]
            done = subprocess.run(
                [*command, "-DincludeScope=runtime"],
                capture_output=True,
                text=True,
                timeout=_FETCH_S,
                check=False,
            )
            if done.returncode:
                pytest.skip(f"Kafka's jars cannot be fetched: {(done.stdout or done.stderr)[-300:]}")
            (libs / "complete").touch()
    return libs


class KafkaLab:
    """One server, broker and controller in one; started again it has its port and its data."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ports = {way: _free_port() for way in WAYS}
        self._controller_port = _free_port()
        self.authority = Authority()
        self._process: subprocess.Popen[bytes] | None = None
        self._classpath = f"{jars()}/*"
        (folder / "log4j2.properties").write_text(_LOG4J)
        (folder / "server.properties").write_text(self._properties())
        subprocess.run(
            [*self._java(), "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk",
             "-c", str(folder / "server.properties"),
             "--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"],
            check=True, capture_output=True, timeout=_UP_S,
        )  # fmt: skip

    @property
    def servers(self) -> str:
        return self.at(PLAIN)

    def at(self, way: str) -> str:
        """Where it listens for one of `WAYS`; users are `USER` with `PASSWORD`, certificates are `authority`'s."""
        return f"127.0.0.1:{self.ports[way]}"

    @property
    def cluster(self) -> Cluster:
        return Cluster((self.servers,))

    def up(self) -> None:
        """Start it, and wait until it answers."""
        with open(self.folder / "kafka.log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._java(), "kafka.Kafka", str(self.folder / "server.properties")], stdout=log, stderr=log
            )
        ends_at = time.monotonic() + _UP_S
        while True:
            try:
                self.client().list_topics(timeout=1.0)
                return
            except Exception:
                assert time.monotonic() < ends_at and self._process.poll() is None, self.said()

    def end(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_UP_S)
            self._process = None

    def client(self) -> Any:
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def topic(self, name: str, partitions: int = 3) -> None:
        from confluent_kafka.admin import NewTopic

        # Held until the answer is here: it ends with its client.
        client = self.client()
        client.create_topics([NewTopic(name, partitions, 1)])[name].result(30)

    def topics(self) -> set[str]:
        """The names of all that there are."""
        client = self.client()
        return set(client.list_topics(timeout=10).topics)

    def produce(
        self, topic: str, values: Sequence[bytes], key: Any = None, headers: Any = None, partition: int = -1
    ) -> None:
        """Every value, acknowledged, whatever happens to the server meanwhile."""
        from confluent_kafka import Producer

        producer = Producer(
            {
                "bootstrap.servers": self.servers,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "log_level": 0,
            }
        )
        failed: list[Any] = []
        for value in values:
            while True:
                try:
                    producer.produce(
                        topic, value=value, key=key, headers=headers, partition=partition,
                        on_delivery=lambda error, _: failed.append(error) if error else None,
                    )  # fmt: skip
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        assert not producer.flush(120) and not failed, failed

    def records(self, topic: str, least: int, timeout_s: float = 60.0) -> list[Any]:
        """The topic's records, once there are that many."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": "lab",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        try:
            ends_at = time.monotonic() + timeout_s
            while not (known := consumer.list_topics(topic, timeout=10).topics[topic].partitions):
                assert time.monotonic() < ends_at, f"there is no topic {topic}"
                time.sleep(0.05)
            consumer.assign([TopicPartition(topic, each, 0) for each in known])
            found: list[Any] = []
            while len(found) < least:
                assert time.monotonic() < ends_at, f"{len(found)} records in {topic}, not {least}"
                found += [each for each in consumer.consume(100, 0.2) if each.error() is None]
            return found
        finally:
            consumer.close()

    def committed(self, group: str, topic: str) -> list[tuple[int, str]]:
        """Offset and metadata of each partition."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": group, "log_level": 0})
        try:
            known = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            found = consumer.committed([TopicPartition(topic, each) for each in sorted(known)], timeout=10)
            return [(each.offset, each.metadata or "") for each in found]
        finally:
            consumer.close()

    def said(self) -> str:
        return (self.folder / "kafka.log").read_text()[-3000:]

    def _java(self) -> list[str]:
        return [*_JAVA, f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties", "-cp", self._classpath]

    def _properties(self) -> str:
        told = ",".join(f"{way}://{self.at(way)}" for way in WAYS)
        lines = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": f"{told},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": told,
            "inter.broker.listener.name": PLAIN,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(
                f"{way}:{protocol}" for way, protocol in {**WAYS, "CONTROLLER": "PLAINTEXT"}.items()
            ),
            "log.dirs": f"{self.folder}/data",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # After a kill it is let in again once its former life is given up: nine seconds, if not told otherwise.
            "broker.session.timeout.ms": "1500",
            "broker.heartbeat.interval.ms": "300",
            "group.min.session.timeout.ms": "1000",
            "auto.create.topics.enable": "false",
            "log.segment.bytes": "16777216",
            "log.cleaner.dedupe.buffer.size": "16777216",
            "num.network.threads": "2",
            "num.io.threads": "2",
            **self._security(),
        }
        return "".join(f"{name}={value}\n" for name, value in lines.items())

    def _security(self) -> dict[str, str]:
        (self.folder / "authority.pem").write_text(self.authority.certificate)
        for name, is_expired in (("good", False), ("expired", True)):
            pair = self.authority.signed("kafka", is_expired=is_expired)
            (self.folder / f"{name}.pem").write_text(pair.key + pair.certificate)
        user = f'required user_{USER}="{PASSWORD}";'
        lines = {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": f"{self.folder}/good.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": f"{self.folder}/authority.pem",
            f"listener.name.{MUTUAL.lower()}.ssl.client.auth": "required",
            f"listener.name.{EXPIRED.lower()}.ssl.keystore.location": f"{self.folder}/expired.pem",
        }
        for way in (SASL, BOTH):
            prefix = f"listener.name.{way.lower()}"
            lines[f"{prefix}.plain.sasl.jaas.config"] = f"{_MODULES}.plain.PlainLoginModule {user}"
            lines[f"{prefix}.scram-sha-512.sasl.jaas.config"] = f"{_MODULES}.scram.ScramLoginModule required;"
        return lines


class SourceLab:
    """The source's program as a process, configured by environment; started again it is the same member."""

    def __init__(
        self, kafka: KafkaLab, folder: pathlib.Path, topic: str, sink: str, **environment: str
    ) -> None:
        root = pathlib.Path(__file__).resolve().parents[2]
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "source.log"
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root / "eventing/kafka-source/src")]),
            "KAFKA_BOOTSTRAP_SERVERS": kafka.servers,
            "KAFKA_TOPICS": topic,
            "KAFKA_CONSUMER_GROUP": f"group-{topic}",
            "KAFKA_INITIAL_OFFSET": "earliest",
            # Whoever is killed is missed soon.
            "KAFKA_SESSION_TIMEOUT": "PT2S",
            "K_SINK": sink,
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "glowplug_kafka_source"], env=self._environment, stdout=log, stderr=log
            )

    def end(self, number: int = signal.SIGKILL) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(_UP_S)
        self._process = None
        return code

    def said(self) -> str:
        return self._log.read_text()[-4000:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
