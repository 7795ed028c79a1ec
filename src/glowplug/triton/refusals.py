"""What a Triton that does not start says of it, and what it would hang on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from glowplug.errors import ConfigError

_UNAVAILABLE = "UNAVAILABLE"
_CELLS = 3  # model, version, status
BACKEND_HINT = (
    "`glowplug triton build … --backend python`, for a backend that this computer's Triton does not have"
)


class ModelTable:
    """Finds the models that could not be loaded in a server's log, which ends with other things; fed line by line."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self._is_inside = False

    def feed(self, line: str) -> None:
        """A line of the log."""
        if not line.startswith("|"):
            # The frame of a table (+---+) is inside of it.
            self._is_inside = self._is_inside and line.startswith("+")
            return
        cells = [cell.strip() for cell in line.strip().strip("|").split("|", _CELLS - 1)]
        if len(cells) != _CELLS:
            return
        name, version, status = cells
        if name:
            self._is_inside = status.startswith(_UNAVAILABLE)
            if self._is_inside:
                self.refused.append(f"model {name!r} version {version}: {status}")
        elif self._is_inside and status:
            # A reason of several lines, such as an exception of Python's.
            self.refused[-1] += f" / {status}"

    @property
    def hint(self) -> str:
        """What to do about it, or nothing."""
        return BACKEND_HINT if any("unable to find backend library" in line for line in self.refused) else ""


def refused_models(lines: Iterable[str]) -> ModelTable:
    """The table of a whole log."""
    table = ModelTable()
    for line in lines:
        table.feed(line)
    return table


def refuse_blanks(path: Path, what: str = "") -> None:
    """Raises ConfigError for a path with blanks: the Python backend splits it into words, and the server then hangs."""
    if any(character.isspace() for character in str(path)):
        raise ConfigError(
            f"Triton's Python backend cannot use paths with blanks: '{path}'{what and f' ({what})'}",
            hint="choose a folder without blanks",
        )
