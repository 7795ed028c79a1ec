"""`features`: from the offline store into Redis, and what is there."""

from __future__ import annotations

import pathlib
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from glowplug.cli import output
from glowplug.errors import ConfigError
from glowplug.spec.times import parse_time

if TYPE_CHECKING:
    from rich.progress import Progress

    from glowplug.features.view import FeatureView
    from glowplug.features.watermark import Plan

app = typer.Typer(
    help="Features: fill the online store from the offline one, and see what it has.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
View = Annotated[pathlib.Path, typer.Option("--view", "-v", help="A feature_view.yaml.", metavar="FILE")]
Online = Annotated[
    str,
    typer.Option(
        "--online",
        envvar="REDIS_URL",
        help="redis://…, or unix:///the/socket.",
        metavar="URL",
        show_envvar=True,
    ),
]


@app.callback()
def _group() -> None:
    """Features: fill the online store from the offline one, and see what it has."""


@app.command(
    epilog="Example: glowplug features materialize -v feature_view.yaml --offline .glowplug/offline/flights"
    " --online redis://127.0.0.1:6379"
)
def materialize(
    view: View,
    online: Online,
    offline: Annotated[
        str,
        typer.Option(
            "--offline", envvar="GLOWPLUG_OFFLINE_URL", help="A folder, or postgresql://…", metavar="URL"
        ),
    ],
    until: Annotated[
        str, typer.Option(help="Rows from before this moment (RFC 3339); default: now.", metavar="TIME")
    ] = "",
    since: Annotated[
        str, typer.Option(help="Rows from this moment on; default: from the beginning.", metavar="TIME")
    ] = "",
    group: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option("--group", "-g", help="These groups of the view only; may be repeated.", metavar="NAME"),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Write everything, also what Redis has already.")
    ] = False,
) -> None:
    """Write the newest row of every key into Redis: what is new since the last time, where that is enough.

    A run that was killed goes on where it stopped. Nothing is taken away: a key that is no longer in the table stays.
    """
    try:
        import anyio

        from glowplug.features.offline import open_store
        from glowplug.features.offline_materialize import materialize as write
        from glowplug.features.online import OnlineConfig
        from glowplug.features.watermark import Range
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed", hint="`pip install 'glowplug[pipelines]'`"
        ) from error

    parsed = _view(view)
    rows = Range(_ms(until) if until else int(time.time() * 1000), _ms(since) if since else None)
    if rows.start_ms is not None and rows.start_ms >= rows.stop_ms:
        raise ConfigError(f"--since {since} is not before --until {until or 'now'}")
    names = [each.name for each in parsed.groups]
    if unknown := sorted(set(group or ()) - set(names)):
        raise ConfigError(f"{view}: no group {', '.join(unknown)}; there are {', '.join(names)}")
    ranges = dict.fromkeys(group or names, rows)
    plans: dict[str, Plan] = {}
    with output.progress() as bar:
        task = partial(
            write,
            open_store(parsed, offline),
            OnlineConfig(online),
            ranges,
            _Bars(bar).show,
            incremental=not full,
            planned=plans.__setitem__,
        )
        written = anyio.run(task)
    for name, count in written.items():
        kind = "in full" if plans[name].is_full else "new"
        output.done(f"{name}: {count:,} keys, {kind} ({plans[name].reason})")
    output.next_steps(f"glowplug features status --view {view}")


@app.command(epilog="Example: glowplug features status -v feature_view.yaml --online redis://127.0.0.1:6379")
def status(view: View, online: Online) -> None:
    """Up to when each group was written into Redis; exit status 1 where one never was."""
    import anyio
    from rich.console import Console
    from rich.table import Table

    from glowplug.features.online import OnlineConfig, OnlineStore

    parsed = _view(view)

    async def read() -> list[Any]:
        async with OnlineStore(OnlineConfig(online)) as store:
            return await store.states(parsed)

    states = anyio.run(read)
    table = Table("GROUP", "UNTIL", box=None, pad_edge=False)
    for state in states:
        table.add_row(state.group, "never" if state.until_ms is None else _moment(state.until_ms))
    Console(width=100).print(table)
    if any(state.until_ms is None for state in states):
        raise typer.Exit(1)


class _Bars:
    """A bar for each group, from when it begins."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}

    def show(self, group: str, done: int, total: int) -> None:
        if group not in self._tasks:
            self._tasks[group] = self._bar.add_task(group, total=total)
        self._bar.update(self._tasks[group], completed=done, total=total)


def _view(path: pathlib.Path) -> FeatureView:
    from glowplug.features.parse import parse_view

    try:
        return parse_view(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="name a feature_view.yaml") from error


def _ms(text: str) -> int:
    moment = parse_time(text)
    if moment is None:
        raise ConfigError(f"{text!r} is no moment", hint="2013-04-01T00:00:00Z, for example")
    return int(moment.timestamp() * 1000)


def _moment(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms / 1000))
