"""Knative's Broker and Trigger on one computer: a durable log of events, and deliveries that are not given up.

`Broker` serves `POST /<namespace>/<broker>` and delivers to the Triggers that it is told of.
"""

from .broker import Broker
from .config import BrokerConfig

__all__ = ["Broker", "BrokerConfig"]
