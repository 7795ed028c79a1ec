"""What payload logging costs the caller: a request without it, with a sink that is well, and with one that hangs.

The model is served by a unit, whose pods hand the copies over themselves.

Three services with the same model, two of them at a time asked by turns on a connection each, so that a noisy minute
hits both. Of two of them every request and answer is logged: to the machine's own broker, and to a socket that takes
connections and never answers. The number of requests a second is held: what is asked is whether a caller waits longer.
Then the same as fast as one caller can, for the throughput.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.lab import Lab, lab, wait_for
from benchmarks.paced import BLOCK, by_turns
from benchmarks.results import Result, percentile, summarise

COMMAND = "python -m benchmarks logger"
_ROUNDS = 12
_REQUESTS = 400
_PER_S = 200.0
_UNPACED = 1e9
_MODES = ("off", "healthy", "hanging")
_JSON = {"Content-Type": "application/json"}


def run(rounds: int = _ROUNDS) -> list[Result]:
    """Ratios of the caller's p50 and p99 and of the throughput, one a round."""
    with (
        socket.create_server(("127.0.0.1", 0)) as hangs,
        lab() as found,
        httpx2.Client(trust_env=False, timeout=30) as client,
    ):
        _add_broker(found)
        for mode in _MODES:
            found.create(mode)
            found.wait_until_served(client, mode)
        _log(found, "healthy", None)
        _log(found, "hanging", f"http://127.0.0.1:{hangs.getsockname()[1]}/")
        pairs = {mode: {each: found.url(each) for each in ("off", mode)} for mode in _MODES[1:]}
        paced = {m: asyncio.run(by_turns(urls, rounds, _REQUESTS, _PER_S)) for m, urls in pairs.items()}
        unpaced = {m: asyncio.run(by_turns(urls, rounds, _REQUESTS, _UNPACED)) for m, urls in pairs.items()}
        came = {mode: _came(found, mode) for mode in _MODES[1:]}
    if not came["healthy"].get("delivered") or not came["hanging"].get("dropped"):
        raise AssertionError(f"nothing was logged, or nothing dropped: {came}")
    results = []
    for mode in _MODES[1:]:
        note = ", ".join(f"{count} {outcome}" for outcome, count in sorted(came[mode].items()))
        results += [_of_times(paced[mode], mode, percent, note) for percent in (50, 99)]
        results.append(_of_throughput(unpaced[mode], mode))
    return results


def _of_times(rounds: list[dict[str, list[float]]], mode: str, percent: int, came: str) -> Result:
    ratios = [percentile(each[mode], percent) / percentile(each["off"], percent) for each in rounds]
    off = percentile([percentile(each["off"], percent) for each in rounds], 50)
    more = percentile(
        [percentile(each[mode], percent) - percentile(each["off"], percent) for each in rounds], 50
    )
    return summarise(
        f"logger.p{percent}.ratio_sink_{mode}", ratios, "x", command=COMMAND,
        goal="< 1.03" if percent == 99 else "",
        note=f"every request and answer logged, sink {mode}; {len(rounds)} rounds of {_REQUESTS} requests each way at"
        f" {_PER_S:g}/s, in turns of {BLOCK}; without it the median round's p{percent} is {off:.2f} ms, with it"
        f" {more * 1000:.0f} us more; of the events came: {came}",
    )  # fmt: skip


def _of_throughput(rounds: list[dict[str, list[float]]], mode: str) -> Result:
    ratios = [sum(each["off"]) / sum(each[mode]) for each in rounds]
    return summarise(
        f"logger.throughput.ratio_sink_{mode}", ratios, "x", command=COMMAND, goal="",
        note=f"requests a second of one caller without a pause, {len(rounds)} rounds of {_REQUESTS} requests each way",
    )  # fmt: skip


def _add_broker(found: Lab) -> None:
    path = "/apis/eventing.knative.dev/v1/namespaces/default/brokers"
    broker = {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": "default"}}
    found.cluster.request("POST", path, body=json.dumps(broker).encode(), headers=_JSON)


def _log(found: Lab, name: str, url: str | None) -> None:
    """A new revision that logs everything, and is waited for."""
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/{name}"
    service: dict[str, Any] = found.cluster.get(path)
    service["spec"]["predictor"]["logger"] = {"mode": "all", **({"url": url} if url else {})}
    found.cluster.request("PUT", path, body=json.dumps(service).encode(), headers=_JSON)
    wanted = f"{name}-predictor-00002"
    keys = ("status", "components", "predictor", "latestRolledoutRevision")

    def is_in_use() -> bool:
        status: Any = found.cluster.get(path)
        for key in keys:
            status = status.get(key, {})
        return status == wanted

    wait_for(is_in_use, f"{wanted} to be in use")


def _came(found: Lab, name: str) -> dict[str, int]:
    page = found.cluster.request("GET", "/metrics").text
    return {
        sample.labels["outcome"]: int(sample.value)
        for family in text_string_to_metric_families(page)
        if family.name == "glowplug_payload_events"
        for sample in family.samples
        if sample.labels.get("inferenceservice") == name
    }
