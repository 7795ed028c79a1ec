"""`python -m benchmarks [NAME ...]`: measure, print, record."""

from __future__ import annotations

import importlib
import sys

from benchmarks.results import record

NAMES = ("machine", "ingress", "demo")


def main(names: list[str]) -> int:
    """Exit code 2 where a name is unknown; a goal that is missed is recorded, not failed."""
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"unknown benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names or NAMES:
        print(f"measuring {name} ...", file=sys.stderr)
        results = importlib.import_module(f"benchmarks.{name}").run()
        record(results)
        for result in results:
            print(
                f"{result.metric} = {result.value:.4g} {result.unit}"
                + (f" (goal {result.goal})" if result.goal else "")
            )
    print("written: docs/benchmarks.json, docs/benchmarks.md", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
