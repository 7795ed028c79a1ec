"""Servers measured by turns: in every round each one gets a short load of each kind, so that a noisy minute hits all.

Ratios are taken within a round and summarised over the rounds.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.load import Amount, Sample, amount_for, measure
from benchmarks.processes import Server
from benchmarks.protocols import Request, WrongAnswer
from benchmarks.results import Result, summarise

COMMAND = "make bench-serving"


@dataclass(frozen=True)
class Options:
    """How much is measured: rounds, seconds a load, and which parts."""

    quick: bool = False
    only: str | None = None

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 5

    @property
    def seconds(self) -> float:
        return 0.4 if self.quick else 1.0


@dataclass(frozen=True)
class Cell:
    """One server under one kind of load."""

    server: str
    protocol: str
    concurrency: int


@dataclass
class Measured:
    """Samples by cell, one a round; memory by server, one a round; and what could not be run, with the reason."""

    samples: dict[Cell, list[Sample]] = field(default_factory=dict)
    memory_mib: dict[str, list[float]] = field(default_factory=dict)
    start_s: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def each(self, cell: Cell, figure: str) -> list[float]:
        """A figure of a cell, one number a round; empty where the cell is absent."""
        return [getattr(sample, figure) for sample in self.samples.get(cell, ())]

    def median(self, cell: Cell, figure: str) -> float:
        return statistics.median(self.each(cell, figure))


def by_turns(
    servers: Mapping[str, Server],
    requests: Mapping[str, Mapping[str, Sequence[Request]]],
    concurrencies: Sequence[int],
    options: Options,
    *,
    seconds: float = 0.0,
    sample_s: float = 0.05,
    is_varied: bool = True,
    after_round: Callable[[], None] = lambda: None,
) -> Measured:
    """Each round, each protocol and concurrency, each server. `requests` is by server and protocol;
    HTTP loads send all its rows, unless not `is_varied`.

    A cell in which a request fails or is answered wrongly is absent, with what went wrong.
    """
    found = Measured(start_s={name: [server.start_s] for name, server in servers.items()})
    amounts: dict[Cell, Amount] = {}
    for number in range(options.rounds):
        for cell in _turn(requests, concurrencies, number):
            if _name(cell) in found.absent:
                continue
            server, sent = servers[cell.server], _from(requests[cell.server][cell.protocol], number)
            try:
                if cell not in amounts:
                    amounts[cell] = amount_for(
                        server, sent[0], cell.concurrency, seconds or options.seconds, is_varied=is_varied
                    )
                sample = measure(server, sent, cell.concurrency, amounts[cell], sample_s=sample_s)
            except (WrongAnswer, OSError) as error:
                found.absent[_name(cell)] = f"{error}"[:300]
                found.samples.pop(cell, None)
                print(f"  {_name(cell)}: {error}", file=sys.stderr)
                continue
            found.samples.setdefault(cell, []).append(sample)
        for name, server in servers.items():
            found.memory_mib.setdefault(name, []).append(server.memory_mib())
        after_round()
        print(f"  round {number + 1} of {options.rounds}", file=sys.stderr)
    return found


def _turn(
    requests: Mapping[str, Mapping[str, Sequence[Request]]], concurrencies: Sequence[int], number: int
) -> list[Cell]:
    """The cells of a round: the same load on every server in turn, another one first each round."""
    protocols = dict.fromkeys(protocol for of_server in requests.values() for protocol in of_server)
    names = list(requests)
    names = names[number % len(names) :] + names[: number % len(names)]
    return [
        Cell(name, protocol, concurrency)
        for protocol in protocols
        for concurrency in concurrencies
        for name in names
        if protocol in requests[name]
    ]


def _from(sent: Sequence[Request], number: int) -> Sequence[Request]:
    """The rows, another one first each round: the first is the one that the load tool repeats."""
    start = number % len(sent)
    return [*sent[start:], *sent[:start]]


def _name(cell: Cell) -> str:
    return f"{cell.server}, {cell.protocol}, c={cell.concurrency}"


def ratio(
    metric: str, mine: Sequence[float], theirs: Sequence[float], *, goal: str = "", note: str = ""
) -> list[Result]:
    """The median of the rounds' ratios, as a list of one; empty where one side is absent."""
    if not mine or not theirs:
        return []
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    return [summarise(metric, ratios, "x", command=COMMAND, goal=goal, note=note)]
