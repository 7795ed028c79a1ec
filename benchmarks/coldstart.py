"""From zero to the first 200: with the warm pool and without, a transformer before its predictor, and stock servers.

By turns: in each round every service starts once from zero, and the peers once or twice beside it, so that a noisy
minute hits all; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks import zero
from benchmarks.environments import KSERVE, Absent, versions
from benchmarks.knative import KnativeCluster
from benchmarks.lab import FEATURES, Lab, lab
from benchmarks.lookup_servers import Store, fill
from benchmarks.processes import Server
from benchmarks.protocols import JSON, Caller, Request, WrongAnswer, request
from benchmarks.results import DOCS, Result, Table, percentile, record, summarise
from benchmarks.xgboost_servers import Place, await_ready, glowplug_xgboost, kserve_xgboost
from glowplug.errors import GlowplugError
from glowplug.features.redis_server import start_redis

COMMAND = "make bench-coldstart"
_ROUNDS = 10
_WITH_POOL, _WITHOUT_POOL, _WITH_TRANSFORMER = 5, 2, 2
_PROCESSES = 2
_XGBOOST, _LOOKUP = "glowplug/xgboost", "glowplug/feature-lookup"
Start = Callable[[], float]
_NOTES = (
    "XGBoost, 100 trees of depth 6, 50 features; each service had pods and was scaled to zero by the autoscaler"
    " before each start; one request, sent on a new connection, until its right answer",
    "what the phases are: docs of `glowplug coldstart`; medians do not add up exactly",
)


@dataclass
class Measured:
    """Milliseconds by round of each kind of start, and the phases of those on a machine."""

    pool: list[list[float]] = field(default_factory=list)
    no_pool: list[list[float]] = field(default_factory=list)
    together: list[list[float]] = field(default_factory=list)
    kserve: list[list[float]] = field(default_factory=list)
    process_s: list[float] = field(default_factory=list)
    knative: list[list[float]] = field(default_factory=list)
    knative_own: list[list[float]] = field(default_factory=list)
    phases: dict[str, list[Any]] = field(default_factory=dict)
    totals: dict[str, list[float]] = field(default_factory=dict)


def run(rounds: int = _ROUNDS, knative: KnativeCluster | None = None) -> list[Result | Table]:
    """All of it: two machines that are otherwise idle, Redis, and the processes one after another."""
    with tempfile.TemporaryDirectory(prefix="glowplug-coldstart-") as folder:
        return asyncio.run(_with_redis(pathlib.Path(folder), rounds, knative))


async def _with_redis(
    folder: pathlib.Path, rounds: int, knative: KnativeCluster | None
) -> list[Result | Table]:
    (folder / "redis").mkdir()
    async with start_redis(folder / "redis") as redis:
        store = await fill(redis.url, folder)
        return await asyncio.to_thread(_measure, folder, rounds, store, knative)


def _measure(
    folder: pathlib.Path, rounds: int, store: Store, knative: KnativeCluster | None
) -> list[Result | Table]:
    found, absent = Measured(), set[str]()
    with ExitStack() as stack:
        warm = stack.enter_context(lab())
        cold = stack.enter_context(lab("--no-warm-pool"))
        bench = _Bench(warm, cold, store, Place(folder, warm.model_dir / "model.ubj"))
        bench.prepare()
        for number in range(rounds):
            bench.round(found)
            for kind, starts in bench.peers(knative, is_own_first=number % 2 == 1).items():
                # A round without an answer stays one, so that ratios are of the same round.
                getattr(found, kind).append([])
                try:
                    getattr(found, kind)[-1].extend(start() for start in starts)
                except (Absent, WrongAnswer, GlowplugError) as error:
                    absent.add(f"{kind}: {error}"[:300])
            print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    for each in sorted(absent):
        print(f"  absent: {each}", file=sys.stderr)
    return [*results(found), _table(found)]


class _Bench:
    """The services of both machines; `round` starts each once from zero."""

    def __init__(self, warm: Lab, cold: Lab, store: Store, place: Place) -> None:
        import xgboost

        self._warm, self._cold, self._place, self._store = warm, cold, place, store
        self._pooled = [f"pooled-{number}" for number in range(_WITH_POOL)]
        self._together = [f"lookup-{number}" for number in range(_WITH_TRANSFORMER)]
        self._plain = [f"plain-{number}" for number in range(_WITHOUT_POOL)]
        booster = xgboost.Booster(model_file=str(place.model_file))
        self._row = np.random.default_rng(1).random((1, FEATURES), dtype=np.float32)
        self._answer = booster.inplace_predict(self._row)
        self._user_answer = booster.inplace_predict(store.rows[:1])

    def prepare(self) -> None:
        """Make the services, and let each answer once before anything counts."""
        for machine, services in ((self._warm, self._pooled), (self._cold, self._plain)):
            zero.scale_to_zero_soon(machine)
            for name in services:
                zero.create_service(machine, name)
        for name in self._together:
            zero.create_service(self._warm, name, transformer=self._transformer(name))
        zero.wait_until_ready(self._warm, [*self._pooled, *self._together])
        zero.wait_until_ready(self._cold, self._plain)
        zero.wait_until_warm(self._warm, [_XGBOOST, _LOOKUP])

    def sent(self, model: str) -> Request:
        """One row for the predictor of that name."""
        return request(JSON, model, {"input-0": self._row}, self._answer)

    def round(self, found: Measured) -> None:
        """Wait for zero, then one start after another."""
        zero.wait_for_zero(self._warm, [*self._pooled, *self._together])
        zero.wait_for_zero(self._cold, self._plain)
        zero.wait_until_warm(self._warm, [_XGBOOST, _LOOKUP])
        found.process_s.append(self._without_machine())
        user = {"user_id": np.array([0], dtype=np.int64)}
        asked = {name: request(JSON, name, user, self._user_answer) for name in self._together}
        asked |= {name: self.sent(name) for name in (*self._pooled, *self._plain)}
        for machine, services, kind, components in (
            (self._warm, self._pooled, "pool", ("predictor",)),
            (self._cold, self._plain, "no_pool", ("predictor",)),
            (self._warm, self._together, "together", ("transformer", "predictor")),
        ):
            getattr(found, kind).append([])
            for name in services:
                took = zero.first_200(machine, name, asked[name])
                getattr(found, kind)[-1].append(took)
                told = zero.timeline(machine, name, components)
                found.phases.setdefault(kind, []).append(told)
                found.totals.setdefault(kind, []).append(took)
                _check(kind, told)

    def peers(self, knative: KnativeCluster | None, *, is_own_first: bool) -> dict[str, list[Start]]:
        """Who is started beside the machines in a round, in that order."""
        found: dict[str, list[Start]] = {"kserve": [lambda: self.process(kserve_xgboost)] * _PROCESSES}
        if knative is not None:
            on_cluster = {"knative": knative.stock, "knative_own": knative.own}
            for kind, name in sorted(on_cluster.items(), reverse=is_own_first):
                if name:
                    found[kind] = [partial(knative.first_200, name, self.sent("m"))]
        return found

    def process(self, launch: Any) -> float:
        """Milliseconds from starting a stock server's process until its first right answer. Raises `Absent`."""
        server: Server = launch("kserve", self._place)
        caller = Caller(server.http_port, 0)

        def is_answered() -> bool:
            try:
                return caller.call(self.sent("m")) > 0
            except WrongAnswer:
                return False

        try:
            server.wait_until(is_answered, every_s=0.005)
            return server.start_s * 1000
        finally:
            caller.close()
            server.stop()

    def _without_machine(self) -> float:
        server = await_ready(glowplug_xgboost("glowplug", self._place))
        server.stop()
        return server.start_s

    def _transformer(self, name: str) -> dict[str, Any]:
        container = {
            "name": "kserve-container",
            "image": "glowplug/feature-lookup:0.1.0",
            "args": [
                f"--model_name={name}", f"--feature_view={self._store.view_file}",
                "--predictor_protocol=v2", "--http_port=8080",
            ],
            "env": [{"name": "REDIS_URL", "value": self._store.url}],
            "readinessProbe": {"httpGet": {"path": "/v2/health/live", "port": 8080}},
            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        }  # fmt: skip
        return {"minReplicas": 0, "containers": [container]}


def _check(kind: str, told: zero.Timeline) -> None:
    wanted = "exec" if kind == "no_pool" else "fork"
    for component, start in told.items():
        if start["how"] != wanted:
            raise AssertionError(f"{kind}: {component} was started by {start['how']}, not by {wanted}")


def results(found: Measured) -> list[Result]:
    """The metrics; those whose peer is absent are absent too."""
    pool, plain, together = (
        [each for of_round in kind for each in of_round]
        for kind in (found.pool, found.no_pool, found.together)
    )
    note = "one request to a revision without pods until its 200, through the ingress"
    measured = [
        _p50("coldstart.xgboost.p50_ms", pool, "< 150", note),
        Result(
            "coldstart.xgboost.p99_ms", percentile(pool, 99), "ms", percentile(pool, 10), percentile(pool, 90),
            len(pool), COMMAND, note="the spread is of single starts",
        ),
        _p50("coldstart.xgboost_without_pool.p50_ms", plain, "", "the same with `glowplug up --no-warm-pool`"),
        _p50(
            "coldstart.transformer_and_predictor.p50_ms", together, "",
            "feature look-up and predictor, components of their own, both at zero; from the warm pool",
        ),
        summarise(
            "start.xgboost_without_pool.s", found.process_s, "s", command=COMMAND, goal="< 0.4",
            note="the predictor's process alone, without a machine, until /v2/health/ready is 200",
        ),
    ]  # fmt: skip
    for metric, theirs, mine, goal, whose in (
        ("ratio_to_kserve_process", found.kserve, found.pool, ">= 10",
         "stock kserve's XGBoost server, from starting its process to its first 200"),
        ("ratio_to_knative", found.knative, found.pool, ">= 10",
         "a real cluster with Knative and KServe on this computer, from zero"),
        ("cluster_glowplug.ratio_to_stock", found.knative_own, found.knative, "<= 0.6",
         "on that cluster: our image, the other KServe's XGBoost server, both from zero"),
    ):  # fmt: skip
        if ratios := ratios_by_round(theirs, mine):
            note = f"{whose}; how many times as long, within a round"
            measured.append(
                summarise(f"coldstart.{metric}", ratios, "x", command=COMMAND, goal=goal, note=note)
            )
    for metric, starts in (("knative", found.knative), ("cluster_glowplug", found.knative_own)):
        if singles := [each for of_round in starts for each in of_round]:
            measured.append(_p50(f"coldstart.{metric}.p50_ms", singles, "", "a real cluster, from zero"))
    return measured


def ratios_by_round(theirs: Sequence[Sequence[float]], mine: Sequence[Sequence[float]]) -> list[float]:
    """Median over median, of each round that both have."""
    return [
        statistics.median(others) / statistics.median(own)
        for others, own in zip(theirs, mine, strict=False)
        if others and own
    ]


def _p50(metric: str, samples: Sequence[float], goal: str, note: str) -> Result:
    return summarise(metric, samples, "ms", command=COMMAND, goal=goal, note=note)


def _table(found: Measured) -> Table:
    rows: list[list[Any]] = []
    for kind, label in (("pool", "from the warm pool"), ("no_pool", "as a new process")):
        starts = [told["predictor"] for told in found.phases.get(kind, ())]
        rows += zero.phase_rows(label, found.totals.get(kind, ()), starts)
    for component in ("transformer", "predictor"):
        starts = [told[component] for told in found.phases.get("together", ())]
        rows += zero.phase_rows(f"both at zero: {component}", found.totals.get("together", ()), starts)
    notes = (*_NOTES, versions(KSERVE)) if found.kserve else _NOTES
    return Table(
        "coldstart.phases", "Cold starts, phase by phase", ("start", "phase", "ms", "n"), rows, notes
    )


def main(argv: list[str]) -> int:
    """`python -m benchmarks.coldstart`: the same with more choices, and a service on a real cluster."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coldstart")
    parser.add_argument(
        "--rounds", type=int, default=_ROUNDS, help=f"of {_WITH_POOL} starts from the pool each"
    )
    parser.add_argument("--out", type=pathlib.Path, default=DOCS, help="where the results go (default: docs)")
    parser.add_argument(
        "--knative-gateway",
        type=int,
        metavar="PORT",
        help="of 127.0.0.1: the gateway of a cluster on this computer with benchmarks/knative.yaml",
    )
    parser.add_argument("--knative-kubeconfig", help="of that cluster")
    parser.add_argument("--knative-namespace", default="glowplug-bench")
    parser.add_argument("--knative-name", default="stock", help="its InferenceService with KServe's server")
    parser.add_argument("--knative-own-name", default="ours", help='the same with our image; "" for none')
    options = parser.parse_args(argv)
    cluster: KnativeCluster | None = None
    if options.knative_gateway or options.knative_kubeconfig:
        if not (options.knative_gateway and options.knative_kubeconfig):
            parser.error("--knative-gateway and --knative-kubeconfig belong together")
        cluster = KnativeCluster(
            options.knative_gateway, options.knative_kubeconfig, options.knative_namespace,
            options.knative_name, options.knative_own_name,
        )  # fmt: skip
    measured = run(options.rounds, cluster)
    kept = [each for each in measured if isinstance(each, Result)]
    record(kept, [each for each in measured if isinstance(each, Table)], options.out)
    for result in kept:
        print(f"{result.metric} = {result.value:.4g} {result.unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
