"""Topics of Kafka and CloudEvents: records to events by consumer groups, events to records. Runs on confluent-kafka.

`Bridge` hands a topic's events on, each by one schedule of attempts, and commits what is over. `EventProducer` writes
events. Who takes the events, and what follows from an answer, is the caller's: see `lane.Handler`.
"""

from .bridge import Bridge, BridgeConfig, Link
from .producer import EventProducer
from .records import Origin, Record, event_of, record_of
from .topics import delete_topics, ensure_topic

__all__ = [
    "Bridge",
    "BridgeConfig",
    "EventProducer",
    "Link",
    "Origin",
    "Record",
    "delete_topics",
    "ensure_topic",
    "event_of",
    "record_of",
]
