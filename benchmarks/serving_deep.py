"""ResNet-50 and BERT-base: glowplug's ONNX predictor, stock kserve + torch, Triton, the Flask monolith, no server."""

from __future__ import annotations

import pathlib
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.deep_servers import INT8, INT8_TOLERANCE, LOOP, MONOLITH, PROTOCOLS, loop, rows_of, start
from benchmarks.environments import FLASK, KSERVE, TORCH, TRITON, Absent, deep_models, versions
from benchmarks.load import Sample
from benchmarks.processes import Server
from benchmarks.protocols import BINARY, RAW, ROUNDING, request
from benchmarks.results import Result, Table
from benchmarks.rounds import Cell, Measured, Options, by_turns, ratio
from benchmarks.serving_tables import figures
from benchmarks.xgboost_servers import GLOWPLUG

CONCURRENCY = 16
NAMES = {"resnet50": ("resnet", "ResNet-50"), "bert-base": ("bert", "BERT-base")}
_SECONDS, _QUICK_SECONDS = 3.0, 1.5
_SAMPLE_S = 1.0
_NOTES = (
    versions(TORCH, KSERVE, FLASK, TRITON),
    "one row a request (1x3x224x224 float32; 128 tokens and their mask), tensors as bytes: V2 binary for glowplug and"
    " Triton, V2 gRPC for kserve (its REST makes a Python list of a binary tensor), plain bytes for Flask",
    "random weights from a seed; ONNX exported from the same torch model, parity asserted; logits of every checked"
    " answer compared with torch's",
    "every server computes with as many threads as there are cores; Triton with dynamic batching (32, 5,000 µs);"
    " Flask on gunicorn with one worker and 4 threads",
    "the loop is onnxruntime in a process of its own, one row after the other, no server: one client",
)


def run(options: Options, folder: pathlib.Path) -> tuple[list[Result], list[Table]]:
    """One model after the other, so that no more than one is in memory with its servers. Raises `Absent`."""
    models = deep_models()
    results: list[Result] = []
    tables = []
    for name, (short, title) in NAMES.items():
        found = _measure(options, models / name, folder / name)
        mine = found.each(Cell(GLOWPLUG, BINARY, CONCURRENCY), "rps")
        flask = found.each(Cell(MONOLITH, RAW, CONCURRENCY), "rps")
        alone = found.each(Cell(LOOP, "none", 1), "rps")
        note = f"{title}, {CONCURRENCY} clients"
        results += ratio(f"serving.{short}.rps.ratio_to_flask", mine, flask, goal=">= 1.5", note=note)
        results += ratio(
            f"serving.{short}_int8.rps.ratio_to_flask",
            found.each(Cell(INT8, BINARY, CONCURRENCY), "rps"), flask,
            note=f"{note}; --quantize=auto, which keeps float32 where int8 is not faster or too far off",
        )  # fmt: skip
        results += ratio(
            f"serving.{short}.rps.ratio_to_onnxruntime_loop", mine, alone, goal=">= 0.95",
            note=f"{note}; the loop has the computer to itself",
        )  # fmt: skip
        tables.append(figures(f"serving.{short}", f"{title} served", found, _NOTES, (f"serving_{short}",)))
    return results, tables


def _measure(options: Options, model_dir: pathlib.Path, folder: pathlib.Path) -> Measured:
    seconds = _QUICK_SECONDS if options.quick else _SECONDS
    rows = rows_of(model_dir)
    absent: dict[str, str] = {}
    servers: dict[str, Server] = {}
    with ExitStack() as stack:
        for name in PROTOCOLS:
            try:
                servers[name] = start(name, model_dir, folder)
            except Absent as error:
                absent[name] = str(error)
                continue
            stack.callback(servers[name].stop)
        requests = {
            name: {
                PROTOCOLS[name]: [
                    replace(
                        request(PROTOCOLS[name], "m", inputs, logits),
                        tolerance=INT8_TOLERANCE if name == INT8 else ROUNDING,
                    )
                    for inputs, logits in rows
                ]
            }
            for name in servers
        }
        loops: list[Sample] = []
        found = by_turns(
            servers, requests, (CONCURRENCY,), options, seconds=seconds, sample_s=_SAMPLE_S, is_varied=False,
            after_round=lambda: loops.append(loop(model_dir, seconds)),
        )  # fmt: skip
    found.samples[Cell(LOOP, "none", 1)] = loops
    found.absent.update(absent)
    return found
