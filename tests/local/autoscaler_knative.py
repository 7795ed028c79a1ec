"""Knative's own autoscaler, asked: the Go program beside this file, built once, and random questions for it.

The program imports Knative's packages at the version that go.mod pins. It is built with the Go that is here into the
user's cache, under a name that follows from its sources, and answers a file of questions in one run. The part that
asks Knative's reconciler takes long to build: its answers are recorded in the repository, and asked for anew where
GLOWPLUG_KNATIVE=reconciler, or =record, which records them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pathlib
import platform
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from typing import Any

import pytest

SOURCES = pathlib.Path(__file__).parent / "go" / "autoscaler"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "glowplug" / "go"
EPOCH_NS = 946_684_800 * 10**9  # 2000-01-01, when virtual time begins; the edge of every bucket
RECORDED = SOURCES / "reconciler.jsonl.gz"
RECORDED_EACH = 500
_UNREACHABLE = re.compile(r"dial tcp|no such host|proxyconnect|module lookup disabled|cannot find module")
_NEEDS_GO = (1, 25)  # the first with testing/synctest

Question = dict[str, Any]


def build(*tags: str) -> pathlib.Path:
    """The built program; skips the test where Go or Knative's modules cannot be had."""
    if platform.machine() not in ("x86_64", "AMD64"):
        # Elsewhere Go fuses multiplications with additions and cuts floats to integers in other ways.
        pytest.skip("Knative's autoscaler is compared on amd64 only, the platform of its releases")
    go = shutil.which("go")
    if go is None:
        pytest.skip("Knative's autoscaler is not compared: there is no `go` on the PATH")
    version = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < _NEEDS_GO:
        pytest.skip(f"Knative's autoscaler is not compared: {version} is older than go1.25")
    digest = hashlib.sha256(f"{version} {tags}".encode())
    for source in sorted(path for path in SOURCES.iterdir() if path != RECORDED):
        digest.update(source.name.encode() + source.read_bytes())
    program = CACHE / f"autoscaler-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        built = pathlib.Path(folder) / "program"
        environment = {**os.environ, "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
        command = [go, "test", "-c", "-tags", ",".join(tags), "-o", str(built), "."]
        result = subprocess.run(
            command, cwd=SOURCES, env=environment, capture_output=True, text=True, timeout=800, check=False
        )
        if result.returncode != 0 and _UNREACHABLE.search(result.stderr):
            pytest.skip(f"Knative's modules cannot be downloaded: {result.stderr.strip().splitlines()[-1]}")
        assert result.returncode == 0, result.stderr[-4000:]
        built.replace(program)
    return program


def ask(program: pathlib.Path, questions: Iterable[Question], folder: pathlib.Path) -> list[Any]:
    """Knative's answers, in order."""
    asked, answered = folder / "questions.jsonl", folder / "answers.jsonl"
    asked.write_text("".join(json.dumps(question) + "\n" for question in questions))
    environment = {**os.environ, "QUESTIONS": str(asked), "ANSWERS": str(answered)}
    result = subprocess.run(
        [str(program), "-test.run", "TestAnswer"],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return [json.loads(line) for line in answered.read_text().splitlines()]


def ask_reconciler(
    name: str, questions: list[Question], folder: pathlib.Path
) -> Iterable[tuple[Question, dict[str, Any]]]:
    """The questions with the reconciler's answers; by default recorded ones, and fewer."""
    wanted = os.environ.get("GLOWPLUG_KNATIVE", "")
    if wanted not in ("reconciler", "record"):
        return _recorded()[name]
    pairs = list(zip(questions, ask(build("reconciler"), questions, folder), strict=True))
    if wanted == "record":
        content = {**(_recorded() if RECORDED.exists() else {}), name: pairs[:RECORDED_EACH]}
        lines = [json.dumps([key, *pair]) for key in sorted(content) for pair in content[key]]
        # Without its time the file is the same for the same answers.
        RECORDED.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return pairs


def _recorded() -> dict[str, list[tuple[Question, dict[str, Any]]]]:
    found: dict[str, list[tuple[Question, dict[str, Any]]]] = {}
    for line in gzip.decompress(RECORDED.read_bytes()).decode().splitlines():
        name, question, answer = json.loads(line)
        found.setdefault(name, []).append((question, answer))
    return found


def trace(chance: random.Random) -> tuple[Question, list[Question]]:
    """A trace's first line, and its ticks: steps, ramps, silences, values that lie exactly on a limit."""
    one = chance.choice
    spec: Question = {
        "target": one([0.01, 0.7, 1, 2.8, 10, 70, chance.uniform(0.01, 200)]),
        "total": one([1, 4, 100, 200, chance.uniform(1, 500)]),
        "max_scale_up_rate": one([1000, 1.1, 2, 10, chance.uniform(1.01, 5)]),
        "max_scale_down_rate": one([2, 1.1, 10, chance.uniform(1.01, 5)]),
        "panic_threshold": one([2, 2, 1.1, 10]),
        "stable_window_s": one([6, 10, 60, 120]),
        "scale_down_delay_s": one([0, 0, 1, 3, 4, 5, 30, 61]),
        "target_burst_capacity": one([211, 0, -1, 10.5, 200]),
        "activation_scale": one([0, 0, 2, 5]),
        "reachable": chance.random() < 0.8,
        "initial_ready": one([0, 1, 2, 3, 7]),
    }
    t, ready, stable, ticks = 0.0, spec["initial_ready"], chance.uniform(0, 500), []
    panic = stable
    for _ in range(chance.randint(5, 80)):
        t += one([2, 2, 1, 0, 4, chance.uniform(0, 3), 20, 70]) if chance.random() < 0.3 else 2
        ready = max(0, one([ready, ready, chance.randint(0, 20), min(50, int(stable / spec["target"]))]))
        if chance.random() < 0.1:
            ticks.append({"t": t, "ready": ready, "no_data": True})
            continue
        if chance.random() < 0.15:
            panic = one(
                [0, 0, chance.uniform(0, 2000), stable, 1e4, 1e12, spec["target"] * chance.randint(0, 20)]
            )
        stable += (panic - stable) * one([0.1, 0.5, 1])
        if chance.random() < 0.1:
            stable = spec["target"] * chance.randint(0, 20)
        ticks.append({"t": t, "ready": ready, "stable": stable, "panic": panic})
    return spec, ticks


def window(chance: random.Random) -> Question:
    """A window's life: writes, late writes, silences, looks and new lengths."""
    one = chance.choice
    shape = {
        "algorithm": one(["linear", "weighted"]),
        "window_s": one([1, 2, 5, 6, 6.5, 7, 12, 30, 41, 42, 60, 120, 200]),
        "granularity_s": one([1, 1, 1, 2]),
    }
    t, ops = one([0, 0, 3, 1000.5]), []
    for _ in range(chance.randint(2, 60)):
        t += one([0, 0.3, 1, 1, 1, 2, chance.uniform(0, 9), chance.uniform(0, 80)])
        kind = chance.random()
        if kind < 0.06:
            ops.append({"do": "resize", "t": t, "value": one([1, 3, 6, 10, 30, 60, 90])})
        elif kind < 0.2:
            ops.append({"do": "look", "t": t})
        else:
            at = t - chance.uniform(0, 8) if kind < 0.25 and t > 8 else t
            ops.append({"do": "record", "t": at, "value": one([0, 1, 10, 0.1, chance.uniform(0, 300)])})
    return {"kind": "window", "window": shape, "ops": ops}


def maximum(chance: random.Random) -> Question:
    """A delay window's life."""
    shape = {"window_s": chance.choice([1, 2, 3, 5, 10, 61]), "granularity_s": chance.choice([1, 2])}
    t, ops = 0.0, []
    for _ in range(chance.randint(1, 60)):
        t += chance.choice([0, 0.4, 1, 2, 2, 2, 5, 70])
        ops.append({"do": "record", "t": t, "value": chance.randint(0, 9)})
    return {"kind": "maximum", "window": shape, "ops": ops}


def meter(chance: random.Random) -> Question:
    """Requests that come and go, and reports of them; some times fall."""
    t, ops, inside = 0.0, [], []
    for _ in range(chance.randint(1, 80)):
        t += chance.choice([0, 0.001, chance.uniform(0, 0.5), 1, -0.01 if t > 1 else 0])
        kind = chance.random()
        if kind < 0.2:
            ops.append({"do": "report", "t": t})
        elif kind < 0.6 and inside:
            ops.append({"do": inside.pop(chance.randrange(len(inside))), "t": t})
        else:
            ops.append({"do": "in", "t": t})
            inside.append("out")
    return {"kind": "meter", "ops": [*ops, {"do": "report", "t": t + 1}]}


_NUMBERS = [
    "", "0", "1", "2", "-1", "+3", "7", "10", "70", "100", "101", "110", "109.9", "200", "1000", "1000.1", "0.01",
    "0.009", "1.5", "1e3", "1_0", "0x10", "0x1p3", "nan", "inf", "-inf", "2147483647", "2147483648",
    "99999999999999999999",
    "many", " 1", "1 ", "1,5", "٣", "-0", ".5", "5.", "-2", "-1.0",
]  # fmt: skip
_DURATIONS = [
    "", "0", "0s", "1s", "5s", "5.9s", "6s", "60s", "90.5s", "1m30s", "1h", "1h0m0.000000001s", "2h", "-1s", "soon",
    "5999ms", "1h1s", "59m60s", "6", "1d", "10m", "1m500ms", "µs", "9999999999h",
]  # fmt: skip
_WORDS = {
    "class": [
        "", "kpa.autoscaling.knative.dev", "hpa.autoscaling.knative.dev", "x.autoscaling.knative.dev", "mine", "kpa",
    ],
    "metric": ["", "concurrency", "rps", "cpu", "memory", "qps", "RPS"],
    "metric-aggregation-algorithm": ["", "linear", "weighted-exponential", "weightedExponential", "best"],
}  # fmt: skip


def _annotation_values(name: str) -> list[str]:
    if name in _WORDS:
        return _WORDS[name]
    return (
        _DURATIONS
        if name in ("window", "scale-down-delay", "scale-to-zero-pod-retention-period")
        else _NUMBERS
    )


def annotations(chance: random.Random, keys: Iterable[str], *, share: float = 0.3) -> dict[str, str]:
    """Some of `keys`, under either spelling, with good and bad values."""
    found = {}
    for key in keys:
        if chance.random() < share:
            name = re.sub("[A-Z]", lambda match: f"-{match[0].lower()}", key.partition("/")[2])
            found[key] = chance.choice(_annotation_values(name))
    return found


_CONFIG: dict[str, list[str]] = {
    "pod-autoscaler-class": ["kpa.autoscaling.knative.dev", " hpa.autoscaling.knative.dev ", "mine"],
    "enable-scale-to-zero": ["true", "false", "yes", "T"],
    "allow-zero-initial-scale": ["true", "true", "false", "1", "no"],
    "unknown-key": ["x"],
}
_CONFIG_DURATIONS = [
    "stable-window", "scale-down-delay", "scale-to-zero-grace-period", "scale-to-zero-pod-retention-period",
]  # fmt: skip


def config(chance: random.Random, keys: Iterable[str], *, share: float, are_good: bool) -> dict[str, str]:
    """Some of the ConfigMap's `keys`; with `are_good`, values that Knative takes each for itself."""
    found = {}
    for key in [*keys, "unknown-key"]:
        if chance.random() >= share:
            continue
        values = _CONFIG.get(key) or (_DURATIONS if key in _CONFIG_DURATIONS else _NUMBERS)
        if are_good:
            values = ["true"] if values is _CONFIG.get(key) else ["7s", "60s"]
            values = values if key in _CONFIG or key in _CONFIG_DURATIONS else ["2", "3", "50", "5.5"]
            if key.endswith("scale") or key == "max-scale-limit":
                values = ["3"]
            values = ["kpa.autoscaling.knative.dev"] if key == "pod-autoscaler-class" else values
        found[key] = chance.choice(values)
    return found


def standing(chance: random.Random) -> Question:
    """What the reconciler finds of a revision."""
    one = chance.choice
    return {
        "desired": one([-1, 0, 0, 0, 1, 5, 100]), "active": one(["", "True", "False", "False", "Unknown"]),
        "active_for": one([0, 1, 29, 30, 59.5, 60, 61, 629, 630, 631, 4000]), "initialized": one([True, False]),
        "proxied": one([True, True, False]), "proxied_for": one([0, 10, 29, 30, 31, 100]),
        "probed": one([True, True, False]), "want": one([-1, 0, 1, 3]), "ready": one([0, 1, 2, 3, 10]),
        "service_name": one(["", "private", "private"]),
    }  # fmt: skip


def text(chance: random.Random) -> str:
    """Something like a number or a duration."""
    kind = chance.random()
    if kind < 0.3:
        return "".join(
            chance.choice('0123456789._+-eExXpPinfNaINF hmsuµn"\\\n') for _ in range(chance.randint(0, 7))
        )
    if kind < 0.5:
        return repr(chance.uniform(-1, 1) * 10 ** chance.randint(-8, 25))
    if kind < 0.7:
        units = ["h", "m", "s", "ms", "us", "µs", "ns", "d", ""]
        return "".join(_part(chance) + chance.choice(units) for _ in range(chance.randint(1, 3)))
    if kind < 0.85:
        return str(chance.randint(-(2**33), 2**33))
    lead, gap = chance.choice(["", "-", "+"]), chance.choice(["", "_"])
    return (
        f"{lead}0x{gap}{chance.randint(0, 2**40):x}{chance.choice(['', '.8', '.'])}p{chance.randint(-20, 20)}"
    )


def _part(chance: random.Random) -> str:
    return chance.choice(["", ".", str(chance.randint(0, 9999)), "1.5", ".25"])
