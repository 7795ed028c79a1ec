"""The report: one HTML file that needs no other, and the figures as JSON beside it."""

from __future__ import annotations

import html
import json
import pathlib
from collections.abc import Iterable, Sequence

from glowplug_loadtest.figures import LATE_MS, Figures, as_json
from glowplug_loadtest.plots import picture

HTML_FILE, JSON_FILE, PNG_FILE = "report.html", "figures.json", "report.png"
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: #1f2937; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; } .quiet { color: #6b7280; }
table { border-collapse: collapse; } td, th { padding: .2rem 1.4rem .2rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: #166534; } .bad { color: #b91c1c; }
.tables { display: flex; flex-wrap: wrap; gap: 0 4rem; } svg { width: 100%; height: auto; }
"""


def write(figures: Figures, folder: pathlib.Path) -> pathlib.Path:
    """report.html, report.png and figures.json in `folder`; the path of the first."""
    path = folder / HTML_FILE
    path.write_text(page(figures), encoding="utf-8")
    (folder / PNG_FILE).write_bytes(picture(figures, "png"))
    (folder / JSON_FILE).write_text(json.dumps(as_json(figures), indent=1) + "\n")
    return path


def page(figures: Figures) -> str:
    """The HTML."""
    plan = figures.plan
    svg = picture(figures).decode()
    title = f"{plan.profile.name} load on {figures.name}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="quiet">{_text(_subtitle(figures))}</p>',
        _verdicts(figures),
        '<div class="tables">',
        *_tables(figures),
        "</div>",
        "<h2>Over time</h2>",
        svg[svg.index("<svg") :],
        "<h2>What the numbers mean</h2>",
        *(f"<p>{_text(note)}</p>" for note in _notes(figures)),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _subtitle(figures: Figures) -> str:
    plan = figures.plan
    rates = [rate for each in plan.profile.segments for rate in (each.start_rps, each.end_rps)]
    span = f"{min(rates):g} to {max(rates):g}" if min(rates) != max(rates) else f"{rates[0]:g}"
    host = f" (host {plan.host})" if plan.host else ""
    return (
        f"{span} requests a second for {plan.profile.duration_s:g} s, {plan.arrivals} arrivals, "
        f"V2 {plan.protocol} to {plan.url}{host}"
    )


def _verdicts(figures: Figures) -> str:
    lines = []
    if figures.is_interrupted:
        lines.append('<p class="bad">✗ The test was interrupted: the figures are of its first part.</p>')
    for verdict in figures.verdicts:
        mark, kind = ("✓", "good") if verdict.is_met else ("✗", "bad")
        lines.append(f'<p class="{kind}">{mark} {_text(verdict.spoken)}</p>')
    return "\n".join(lines)


def _tables(figures: Figures) -> Iterable[str]:
    total = figures.total
    yield _table(
        "Requests",
        [
            ("due", f"{total['requests']:,}"),
            ("answered rightly", f"{total['answered']:,}"),
            ("failed", f"{total['failed']:,} ({total['failed_percent']:.3g} %)"),
            ("of these never sent", f"{total['unsent']:,}"),
        ],
    )
    yield _table("Latency", [(name, _ms(value)) for name, value in total["latency_ms"].items()])
    yield _table(
        "Slow or failed",
        [(f"over {limit} ms", f"{percent:.3g} %") for limit, percent in total["over_percent"].items()],
    )
    if replicas := total["replicas"]:
        rows = [
            ("ready, least and most", f"{replicas['ready_least']} – {replicas['ready_most']}"),
            ("desired, most", str(replicas["desired_most"])),
            ("replica-seconds", f"{replicas['replica_seconds']:,.0f}"),
        ]
        if replicas["held_most"] is not None:
            rows.append(("held by the activator, most", f"{replicas['held_most']:,}"))
        yield _table("Replicas", rows)
    if total["errors"]:
        yield _table("Failures", [(error, f"{count:,}") for error, count in total["errors"].items()])


def _table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    lines = "".join(
        f'<tr><td>{_text(name)}</td><td class="number">{_text(value)}</td></tr>' for name, value in rows
    )
    return f"<div><h2>{_text(title)}</h2><table>{lines}</table></div>"


def _notes(figures: Figures) -> Iterable[str]:
    plan, sender = figures.plan, figures.total["sender"]
    yield (
        "Requests are due on a schedule that does not wait for answers. Latency counts from the due time, so a request "
        "that could not be sent in time is as slow as it was for whoever wanted it; percentiles are of those answered "
        "rightly, “slow or failed” counts the others too."
    )
    how = (
        "equals the one that the same request got before the load"
        if plan.check == "reference"
        else "is well formed and its numbers are finite"
    )
    yield f"An answer is right if it {how}. No request is sent twice."
    if plan.warm_up_s:
        yield f"The first {plan.warm_up_s:g} s are in the picture and not in the figures."
    if sender["lag_p99_ms"] is not None:
        yield (
            f"The sender itself: 99 % of the requests went out within {_ms(sender['lag_p99_ms'])} of being due, "
            f"{sender['late_percent']:.3g} % later than {LATE_MS:g} ms. Where that is not small beside the latencies, "
            f"{plan.max_in_flight:,} requests were in flight, which is the bound, or the sender's computer is too busy."
        )
    if not figures.samples:
        yield "Replicas are not shown: the Kubernetes API was not asked, or did not answer."


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} ms" if value < 1000 else f"{value / 1000:,.2f} s"


def _text(text: str) -> str:
    return html.escape(text)
