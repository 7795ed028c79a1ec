"""A settings file's sections: typed reading that collects every problem with its line, and refuses unknown keys.

section = Section.of(text, "pipeline.yaml")
days = section.section("window").number("days", 90.0, above=0)
section.finish()          # ConfigError with all problems at once
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glowplug.errors import ConfigError
from glowplug.spec.yamltext import YamlProblem, documents

_ABSENT: Any = object()


class Section:
    """One mapping of the file. Each key that is read is known; `finish` of the outermost one names the others."""

    def __init__(
        self, values: Mapping[str, Any], source: str, lines: Mapping[Any, int], path: tuple[str, ...]
    ):
        self._values = values
        self._source = source
        self._lines = lines
        self._path = path
        self._known: set[str] = set()
        self._below: list[Section] = []
        self._problems: list[str] = []

    @classmethod
    def of(cls, text: str, source: str) -> Section:
        """The one document of a file. Raises `ConfigError` where it is no YAML or no mapping."""
        try:
            found = list(documents(text))
        except YamlProblem as problem:
            raise ConfigError(
                f"{source}:{problem.line}:{problem.column} {problem.message}", hint=problem.hint
            ) from problem
        if len(found) != 1 or not isinstance(found[0].value, dict):
            raise ConfigError(f"{source} has {len(found)} YAML documents, must be one mapping")
        section = cls(found[0].value, source, found[0].lines, ())
        section._problems += [
            f"{source}:{line} {'.'.join(str(each) for each in path)} is written twice"
            for path, line in found[0].duplicates
        ]
        return section

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str, default: str = _ABSENT) -> str:
        value = self._read(key, default)
        if not isinstance(value, str) or not value:
            return str(self._wrong(key, value, "must be text", default if isinstance(default, str) else ""))
        return value

    def texts(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        value = self._read(key, list(default))
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self._wrong(key, value, "must be a list of texts", None)
            return ()
        return tuple(value)

    def number(
        self,
        key: str,
        default: float,
        *,
        at_least: float = -math.inf,
        above: float = -math.inf,
        below: float = math.inf,
    ) -> float:
        """A finite number with at_least <= it, above < it < below."""
        value = self._read(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return float(self._wrong(key, value, "must be a number", default))
        if value < at_least:
            return float(self._wrong(key, value, f"must be {at_least:g} or more", default))
        if value <= above:
            return float(self._wrong(key, value, f"must be above {above:g}", default))
        if value >= below:
            return float(self._wrong(key, value, f"must be below {below:g}", default))
        return float(value)

    def whole(self, key: str, default: int, *, at_least: int = 0) -> int:
        value = self._read(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            return int(self._wrong(key, value, f"must be a whole number of {at_least} or more", default))
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._read(key, default)
        if not isinstance(value, bool):
            return bool(self._wrong(key, value, "must be true or false", default))
        return value

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        value = self._read(key, default)
        if value not in choices:
            return str(self._wrong(key, value, f"must be one of {', '.join(choices)}", default))
        return str(value)

    def section(self, key: str) -> Section:
        """The mapping below `key`; an absent one is empty."""
        value = self._read(key, {})
        if not isinstance(value, dict):
            self._wrong(key, value, "must be a mapping", None)
            value = {}
        below = Section(value, self._source, self._lines, (*self._path, key))
        self._below.append(below)
        return below

    def mapping(self, key: str) -> Mapping[str, Any]:
        """The mapping below `key` as it is, for somebody else to read."""
        value = self._read(key, {})
        if not isinstance(value, dict):
            self._wrong(key, value, "must be a mapping", None)
            return {}
        return value

    def problem(self, key: str, message: str) -> None:
        """Note one that only the caller can see."""
        self._problems.append(f"{self._where(key)} {message}")

    def finish(self) -> None:
        """Raises `ConfigError` with every problem, unknown keys among them, of this section and those below."""
        problems = list(self._all_problems())
        if problems:
            raise ConfigError("\n".join(problems))

    def _all_problems(self) -> Iterator[str]:
        yield from self._problems
        for key in self._values:
            if key not in self._known:
                known = ", ".join(sorted(self._known))
                yield f"{self._where(str(key))} is unknown, must be one of {known}"
        for below in self._below:
            yield from below._all_problems()

    def _read(self, key: str, default: Any) -> Any:
        self._known.add(key)
        if key not in self._values and default is _ABSENT:
            self._problems.append(f"{self._where(key)} is absent")
            return "absent"
        return self._values.get(key, default)

    def _wrong(self, key: str, value: Any, expected: str, instead: Any) -> Any:
        self._problems.append(f"{self._where(key)} = {value!r}, {expected}")
        return instead

    def _where(self, key: str) -> str:
        path = (*self._path, key)
        while path and path not in self._lines:
            path = path[:-1]
        return f"{self._source}:{self._lines.get(path, 1)} {'.'.join((*self._path, key))}"


def read_text(path: Path) -> str:
    """Raises `ConfigError` for a file that cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings {path} cannot be read: {error}") from error
