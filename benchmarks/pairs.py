"""What a new layout of the features costs while it is rolled out: requests whose predictor is of another version than
their transformer, with the pair lock and without it.

A transformer that makes 50 features, then 51, and a predictor that says how many it expects and how many it got, as
components of their own. The canary goes to 10, 50 and 100 % and is promoted, while REST clients ask without pause and
never try again; the new predictor takes longer to load than the new transformer.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2

from benchmarks.lab import Lab, lab, wait_for
from benchmarks.results import Result
from glowplug.errors import NotFound
from glowplug.spec import names, pairs

COMMAND = "make bench-pairs"
OLD, NEW = 50, 51
COMPONENTS = ("predictor", "transformer")
WEIGHTS = (10, 50, 100, None)
_PODS = pathlib.Path(__file__).parent / "paired_pods"
_SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
_ROUTES = "/apis/serving.knative.dev/v1/namespaces/default/routes"
_JSON = {"Content-Type": "application/json"}
_MERGE = {"Content-Type": "application/merge-patch+json"}
_CLIENTS = 6
_STEP_S = 5.0
_BODY = json.dumps(
    {"inputs": [{"name": "input-0", "datatype": "FP32", "shape": [1, 1], "data": [0.0]}]}
).encode()


@dataclass
class Outcome:
    """What the predictor expected, what it got and what the transformer made; failures; and times in ms."""

    met: Counter[tuple[int, ...]] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)

    @property
    def mismatches(self) -> int:
        """Requests that met another version."""
        return sum(count for (expected, got, made), count in self.met.items() if not expected == got == made)


def run() -> list[Result]:
    """On a machine of its own; about a minute."""
    outcomes: dict[bool, Outcome] = {}
    with lab() as found:
        for is_locked in (True, False):
            name = "locked" if is_locked else "unlocked"
            outcomes[is_locked] = asyncio.run(_rolled_out(found, name, is_locked))
            found.delete(name)
            print(f"  {name}: {dict(outcomes[is_locked].met)}", file=sys.stderr)
            for what, count in outcomes[is_locked].failed.items():
                print(f"  {count} × {what}", file=sys.stderr)
    return _results(outcomes[True], outcomes[False])


async def _rolled_out(found: Lab, name: str, is_locked: bool) -> Outcome:
    await asyncio.to_thread(_write, found, "POST", _SERVICES, _service(name, OLD, is_locked), _JSON)
    await asyncio.to_thread(_wait_shares, found, name, {1: 100})
    outcome, is_over = Outcome(), asyncio.Event()
    asking = [
        asyncio.create_task(_ask(found, name, outcome, is_over), name=f"ask {n}") for n in range(_CLIENTS)
    ]
    try:
        await asyncio.sleep(_STEP_S / 2)
        new = _service(name, NEW, is_locked, WEIGHTS[0])
        await asyncio.to_thread(_write, found, "PATCH", f"{_SERVICES}/{name}", {"spec": new["spec"]}, _MERGE)
        for weight in WEIGHTS:
            patch = {"spec": {component: {"canaryTrafficPercent": weight} for component in COMPONENTS}}
            await asyncio.to_thread(_write, found, "PATCH", f"{_SERVICES}/{name}", patch, _MERGE)
            share = 100 if weight is None else weight
            await asyncio.to_thread(_wait_shares, found, name, {1: 100 - share, 2: share})
            await asyncio.sleep(_STEP_S)
    finally:
        is_over.set()
        await asyncio.gather(*asking)
    return outcome


def _service(name: str, features: int, is_locked: bool, percent: int | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    for component in COMPONENTS:
        is_late = component == "predictor" and features == NEW
        container = {
            "name": "kserve-container",
            "image": f"example/{component}",
            "command": ["python", str(_PODS / f"{component}.py")],
            "args": [
                f"--model_name={name}",
                "--http_port=$(PORT)",
                "--grpc_port=8091",
                "--predictor_protocol=v2",
            ],
            "env": [
                {"name": "FEATURES", "value": str(features)},
                {"name": "LOAD_S", "value": "1" if is_late else "0"},
            ],
        }
        weight = {} if percent is None else {"canaryTrafficPercent": percent}
        spec[component] = {"containers": [container], **weight}
    annotations = {names.DEPLOYMENT_MODE: "Knative"}
    if is_locked:
        annotations[names.PAIR_LOCK] = "true"
    isvc = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": spec,
    }
    # As the webhook does it.
    return pairs.stamp(isvc) or isvc


def _write(found: Lab, verb: str, path: str, content: dict[str, Any], headers: dict[str, str]) -> None:
    found.cluster.request(verb, path, body=json.dumps(content).encode(), headers=headers)


def _wait_shares(found: Lab, name: str, shares: dict[int, int]) -> None:
    wanted = {number: share for number, share in shares.items() if share}
    for component in COMPONENTS:
        route = f"{_ROUTES}/{name}-{component}"
        wait_for(lambda route=route: _shares(found, route) == wanted, f"{wanted} of {route}")


def _shares(found: Lab, path: str) -> dict[int, int]:
    """What the ingress has confirmed, by the number of the revision; nothing while it has not."""
    try:
        route = found.cluster.get(path)
    except NotFound:
        return {}
    status = route.get("status") or {}
    is_observed = status.get("observedGeneration") == route["metadata"]["generation"]
    if not is_observed or any(each["status"] != "True" for each in status.get("conditions") or ()):
        return {}
    shares: Counter[int] = Counter()
    for target in status.get("traffic") or ():
        shares[int(target["revisionName"].rpartition("-")[2])] += target.get("percent") or 0
    return dict(+shares)


async def _ask(found: Lab, name: str, outcome: Outcome, is_over: asyncio.Event) -> None:
    url = f"{found.url(name)}/v2/models/{name}/infer"
    async with httpx2.AsyncClient(trust_env=False, timeout=40) as client:
        while not is_over.is_set():
            began = time.perf_counter()
            try:
                answer = await client.post(url, content=_BODY, headers=_JSON)
            except httpx2.HTTPError as error:
                outcome.failed[repr(error)] += 1
                continue
            if answer.status_code != 200:
                outcome.failed[f"{answer.status_code} {answer.text[:200]}"] += 1
                continue
            outcome.met[tuple(answer.json()["outputs"][0]["data"])] += 1
            outcome.times.append(1000 * (time.perf_counter() - began))


def _results(locked: Outcome, unlocked: Outcome) -> list[Result]:
    steps = " → ".join("promoted" if weight is None else f"{weight} %" for weight in WEIGHTS)

    def result(metric: str, value: int, outcome: Outcome, goal: str, what: str) -> Result:
        asked = outcome.met.total() + outcome.failed.total()
        note = f"{what}, of {asked:,} in a rollout ({steps}) of {OLD} → {NEW} features"
        return Result(metric, value, "requests", value, value, asked, COMMAND, goal, note)

    mixed = "requests that met a predictor of another version than their transformer"
    return [
        result("canary.pairlock.mismatches", locked.mismatches, locked, "0", mixed),
        result("canary.pairlock.failed", locked.failed.total(), locked, "0", "requests that failed"),
        result(
            "canary.pairlock.mismatches_unlocked",
            unlocked.mismatches,
            unlocked,
            "",
            f"{mixed}, without the lock",
        ),
    ]
