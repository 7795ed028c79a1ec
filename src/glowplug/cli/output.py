"""How the command line speaks: a ✓ or ✗ a step, errors with their hint, the next command to type."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from glowplug.errors import ApiError, GlowplugError


def stderr() -> Console:
    """A console on stderr that respects `NO_COLOR` and pipes."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def done(text: str) -> None:
    """One finished step."""
    stderr().print(f"[green]✓[/green] {_plain(text)}")


def failed(error: GlowplugError) -> None:
    """What went wrong, each cause on a line of its own, and what to do about it."""
    console = stderr()
    console.print(f"[red]✗[/red] {_plain(error.message)}")
    if isinstance(error, ApiError):
        for cause in error.causes:
            if cause.message not in error.message:
                console.print(f"    {_plain(cause.field)}: {_plain(cause.message)}")
    if error.hint:
        console.print(f"  hint: {_plain(error.hint)}")


def warned(text: str) -> None:
    """Something that the user should know, though the command goes on."""
    stderr().print(f"[yellow]![/yellow] {_plain(text)}")


def next_steps(*commands: str) -> None:
    """The commands to type next, one a line, as they can be typed here."""
    console = stderr()
    console.print("\nnext:")
    for command in commands:
        if shutil.which("kubectl") is not None or not command.startswith("kubectl wait"):
            console.print(f"  {_plain(_typed(command))}")


def _typed(command: str) -> str:
    """`command` with the path of our own program where PATH does not lead to it, and without kubectl where none is."""
    verb, _, rest = command.partition(" ")
    own = pathlib.Path(sys.executable).parent / "glowplug"
    if verb == "kubectl" and shutil.which("kubectl") is None:
        verb = "glowplug"
    if verb != "glowplug" or shutil.which("glowplug") == str(own) or not own.exists():
        return f"{verb} {rest}".strip()
    return f"{relative(own)} {rest}".strip()


@contextmanager
def step(text: str) -> Iterator[None]:
    """Show `text` with its duration once the block is through; nothing where it raises, the error says it."""
    started = time.monotonic()
    console = stderr()
    if console.is_terminal:
        with console.status(_plain(text)):
            yield
    else:
        yield
    console.print(f"[green]✓[/green] {_plain(text)} [dim]{time.monotonic() - started:.1f} s[/dim]")


def progress() -> Progress:
    """A progress bar for work of known size; silent where stderr is no terminal."""
    return Progress(
        TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=stderr(), transient=True, disable=not sys.stderr.isatty(),
    )  # fmt: skip


def relative(path: str | os.PathLike[str]) -> str:
    """`path` as one would type it from here."""
    shown = os.path.relpath(path)
    return shown if not shown.startswith("..") else os.fspath(path)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
