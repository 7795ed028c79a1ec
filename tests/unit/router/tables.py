"""Random route tables, small enough that names collide."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from glowplug.router import RouterConfig
from glowplug.router.layout import Layout
from glowplug.router.xds import Snapshot, snapshot
from glowplug.spec.affinity import Affinity, Source
from glowplug.spec.routes import Backend, Endpoint, RouteEntry, RouteTable, Split

CONFIG = RouterConfig(Path("/run/router"))
LAYOUT = Layout(Path("/run/router"), Path("/run/router"))

_REVISIONS = [f"default/rev-{number}" for number in range(4)]
TAGS = ("latest", "prev", "blue")
SEGMENTS = st.sampled_from(["a", "ab", "serving", "v2"])
PREFIXES = st.lists(SEGMENTS, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


@st.composite
def _splits(draw: st.DrawFn) -> tuple[Split, ...]:
    revisions = draw(st.lists(st.sampled_from(_REVISIONS), unique=True, max_size=3))
    if not revisions:
        return ()
    cuts = sorted(
        draw(st.lists(st.integers(0, 100), min_size=len(revisions) - 1, max_size=len(revisions) - 1))
    )
    percents = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
    return tuple(Split(revision, percent) for revision, percent in zip(revisions, percents, strict=True))


_ENTRIES = st.builds(
    lambda name, prefixes, splits, tags, affinity: RouteEntry(
        "default",
        name,
        (f"{name}.default.localhost", f"{name}.default"),
        tuple(prefixes),
        splits,
        tags=tuple(sorted(tags.items())),
        affinity=affinity,
    ),
    st.sampled_from(["flights", "fraud", "text"]),
    st.lists(PREFIXES, max_size=2),
    _splits(),
    st.dictionaries(st.sampled_from(TAGS), st.sampled_from(_REVISIONS), max_size=2),
    st.sampled_from([None, Affinity(Source.HEADER, "x-user-id"), Affinity(Source.COOKIE, "session")]),
)
_ENDPOINTS = st.lists(st.integers(1, 4), unique=True, max_size=3).map(
    lambda numbers: tuple(
        Endpoint(f"default/pod-{n}", "127.0.0.1", 40000 + n, None if n == 4 else 50000 + n) for n in numbers
    )
)
_LIMITS = {revision: number % 2 * 3 for number, revision in enumerate(_REVISIONS)}


@st.composite
def tables(draw: st.DrawFn) -> RouteTable:
    entries = draw(st.lists(_ENTRIES, max_size=3, unique_by=lambda entry: entry.name))
    names = draw(st.lists(st.sampled_from(_REVISIONS), unique=True))
    backends = [Backend(name, draw(_ENDPOINTS), _LIMITS[name], 30.0) for name in names]
    return RouteTable(tuple(entries), tuple(backends))


def snapshot_of(table: RouteTable) -> Snapshot:
    return snapshot(
        table, port=8080, local_ports={("default", "flights"): 40000}, config=CONFIG, layout=LAYOUT
    )
