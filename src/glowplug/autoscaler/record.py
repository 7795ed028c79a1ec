"""Records the trace of a running revision, so that its decisions can be replayed.

The source is whoever runs the decider: it hands over what it decides on. A trace says how a decider started, not how
it stands, so a recording that begins in the middle of a panic or of a scale-down delay replays that one as if it had
begun with the recording; from the end of it on the decisions are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from .decider import NoData, Observation, State
from .parameters import SECOND_NS, TICK_S, Parameters
from .trace import header_line, tick_line


@dataclass(frozen=True)
class Recorded:
    """What one decision was made on: the arguments of `decider.decide`, and the ready pods, which are known even
    where there is no data."""

    parameters: Parameters
    state: State
    observation: Observation | NoData
    ready: int
    now_ns: int


class TraceSource(Protocol):
    """A running revision's decisions, in order, for as long as it is asked for them."""

    def decisions(self) -> Iterator[Recorded]: ...


def lines(source: TraceSource) -> Iterator[str]:
    """The trace's lines, without line ends, each as soon as it is known.

    It ends with the source, or when the revision's parameters change: a trace has one set of them.
    """
    first: Recorded | None = None
    start_ns = 0
    for recorded in source.decisions():
        if first is None:
            first = recorded
            # The last edge of the delay's buckets, which are the longest ones.
            start_ns = recorded.now_ns - recorded.now_ns % (TICK_S * SECOND_NS)
            # Outside of panic it is at most 1, and a decider that starts with more panics.
            yield header_line(recorded.parameters, recorded.state.max_panic_pods)
        if recorded.parameters != first.parameters:
            return
        t = (recorded.now_ns - start_ns) / SECOND_NS
        yield tick_line(t, recorded.ready, recorded.observation)
