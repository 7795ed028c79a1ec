"""What shadow traffic costs the caller: the same request with no shadow, and with one that is well, and one that hangs.

Three services with the same model, two of them at a time asked by turns on a connection each, so that a noisy minute
hits both. Of two of them every request is copied: to a second revision with the same model, and to one that takes
requests and never answers. The number of requests a second is held, since a shadow's copy takes CPU time beside the
caller's next request: what is asked is whether a caller waits longer, not how much a computer can do. The pods in use
hand the copies over themselves.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx2

from benchmarks.lab import Lab, lab, wait_for
from benchmarks.paced import BLOCK, by_turns
from benchmarks.results import Result, percentile, summarise

COMMAND = "python -m benchmarks shadow"
_ROUNDS = 12
_REQUESTS = 400
_PER_S = 200.0
_MODES = ("off", "healthy", "hanging")

_HANGS = """
import http.server, os, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()

    def do_POST(self):
        time.sleep(3600)

    def log_message(self, *arguments): pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def run() -> list[Result]:
    """Ratios of the caller's p50 and p99, one a round."""
    with lab() as found, httpx2.Client(trust_env=False, timeout=30) as client:
        for mode in _MODES:
            found.create(mode)
            found.wait_until_served(client, mode)
        for mode in _MODES[1:]:
            _shadow(found, mode)
        pairs = {mode: {each: found.url(each) for each in ("off", mode)} for mode in _MODES[1:]}
        rounds = {m: asyncio.run(by_turns(urls, _ROUNDS, _REQUESTS, _PER_S)) for m, urls in pairs.items()}
        copied = _copied(found)
    missing = [mode for mode in _MODES[1:] if not copied.get(mode)]
    if missing:
        raise AssertionError(f"nothing was copied of {', '.join(missing)}: {copied}")
    return [_ratio(rounds[mode], mode, percent, copied[mode]) for mode in _MODES[1:] for percent in (50, 99)]


def _ratio(rounds: list[dict[str, list[float]]], mode: str, percent: int, copied: dict[str, int]) -> Result:
    ratios = [percentile(each[mode], percent) / percentile(each["off"], percent) for each in rounds]
    off = percentile([percentile(each["off"], percent) for each in rounds], 50)
    more = percentile(
        [percentile(each[mode], percent) - percentile(each["off"], percent) for each in rounds], 50
    )
    became = ", ".join(f"{count} {outcome}" for outcome, count in sorted(copied.items()))
    return summarise(
        f"shadow.caller.p{percent}.ratio_to_off{'' if mode == 'healthy' else '.hanging'}", ratios, "x",
        command=COMMAND, goal="< 1.1" if percent == 50 else "",
        note=f"100 % shadowed, shadow {mode}; {_ROUNDS} rounds of {_REQUESTS} requests each way at {_PER_S:g}/s, in"
        f" turns of {BLOCK}; without it the median round's p{percent} is {off:.2f} ms, with it"
        f" {more * 1000:.0f} us more; of the copies came: {became}",
    )  # fmt: skip


def _shadow(found: Lab, name: str) -> None:
    """A second revision without traffic, on which every request is tried."""
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/{name}"
    service: dict[str, Any] = found.cluster.get(path)
    service["metadata"].setdefault("annotations", {})["glowplug.dev/shadow"] = "100"
    predictor = service["spec"]["predictor"]
    predictor["canaryTrafficPercent"] = 0
    if name == "hanging":
        command = [sys.executable, "-c", _HANGS]
        del predictor["model"]
        predictor["containers"] = [{"name": "kserve-container", "image": "example/hangs", "command": command}]
    else:
        predictor["model"].setdefault("env", []).append({"name": "AGAIN", "value": "1"})
    headers = {"Content-Type": "application/json"}
    found.cluster.request("PUT", path, body=json.dumps(service).encode(), headers=headers)
    wanted = f"{name}-predictor-00002"
    components = ("status", "components", "predictor", "latestReadyRevision")

    def is_ready() -> bool:
        status: Any = found.cluster.get(path)
        for key in components:
            status = status.get(key, {})
        return status == wanted

    wait_for(is_ready, f"{wanted} to be ready")


def _copied(found: Lab) -> dict[str, dict[str, int]]:
    """By service, what came of the copies."""
    return {
        entry["service"].partition("/")[2]: entry["outcomes"]
        for entry in found.cluster.get("/shadows")["services"]
    }
