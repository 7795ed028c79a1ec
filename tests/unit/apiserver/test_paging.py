"""Pages: every object once, as of the first page, whatever is written in between."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.apiserver.world import World, thing

from glowplug.apiserver.codec import decode
from glowplug.apiserver.paging import Page
from glowplug.apiserver.selectors import equal
from glowplug.apiserver.watch import Window
from glowplug.errors import BadRequest, Gone
from glowplug.spec.kinds import CONFIG_MAP


def fill(world: World, count: int) -> None:
    for number in range(count):
        world.objects.create(CONFIG_MAP, thing(f"c{number:03}", labels={"half": str(number % 2)}))


def names(items: list[bytes]) -> list[str]:
    return [decode(raw)["metadata"]["name"] for raw in items]


def test_pages_tell_what_remains(world: World) -> None:
    fill(world, 7)
    first = world.objects.page(CONFIG_MAP, "default", Page(limit=3))
    assert (names(first.items), first.remaining) == (["c000", "c001", "c002"], 4)
    second = world.objects.page(CONFIG_MAP, "default", Page(limit=3, token=first.token))
    assert (names(second.items), second.remaining) == (["c003", "c004", "c005"], 1)
    last = world.objects.page(CONFIG_MAP, "default", Page(limit=3, token=second.token))
    assert (names(last.items), last.token, last.remaining) == (["c006"], "", None)


def test_later_pages_are_of_the_first_ones_revision(world: World) -> None:
    fill(world, 6)
    first = world.objects.page(CONFIG_MAP, "", Page(limit=2))
    world.objects.delete(CONFIG_MAP, "default", "c003")
    world.objects.create(CONFIG_MAP, thing("c0025"))
    world.objects.update(CONFIG_MAP, {**thing("c004"), "data": {"new": "yes"}})
    rest = world.objects.page(CONFIG_MAP, "", Page(token=first.token))
    assert names(rest.items) == ["c002", "c003", "c004", "c005"]
    assert all("data" not in decode(raw) for raw in rest.items)
    assert rest.revision == first.revision
    assert names(world.objects.page(CONFIG_MAP, "", Page()).items)[2:4] == ["c002", "c0025"]


def test_selector_with_a_limit(world: World) -> None:
    fill(world, 6)
    half = equal({"half": "1"})
    first = world.objects.page(CONFIG_MAP, "", Page(half, limit=2))
    assert (names(first.items), first.remaining) == (["c001", "c003"], None)
    last = world.objects.page(CONFIG_MAP, "", Page(half, limit=2, token=first.token))
    assert (names(last.items), last.token) == (["c005"], "")


def test_expired_token_is_gone(tmp_path: Path) -> None:
    world = World(tmp_path, Window(events=4))
    fill(world, 4)
    token = world.objects.page(CONFIG_MAP, "", Page(limit=1)).token
    for number in range(10):
        world.objects.update(CONFIG_MAP, {**thing("c000"), "data": {"n": str(number)}})
    with pytest.raises(Gone, match="continue parameter is too old"):
        world.objects.page(CONFIG_MAP, "", Page(token=token))
    world.close()


@pytest.mark.parametrize(
    "token", ["nonsense!", base64.b64encode(b"[]").decode(), base64.b64encode(b"{}").decode()]
)
def test_token_that_is_none(world: World, token: str) -> None:
    with pytest.raises(BadRequest, match="continue key is not valid"):
        world.objects.page(CONFIG_MAP, "", Page(token=token))


def test_list_at_an_exact_revision(world: World) -> None:
    fill(world, 2)
    revision = world.store.revision
    world.objects.delete(CONFIG_MAP, "default", "c000")
    listing = world.objects.page(CONFIG_MAP, "", Page(revision=revision))
    assert (names(listing.items), listing.revision) == (["c000", "c001"], revision)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["put", "delete"])), max_size=12),
    limit=st.integers(1, 5),
)
def test_paging_is_a_snapshot(world: World, writes: list[tuple[int, str]], limit: int) -> None:
    for obj in world.objects.list(CONFIG_MAP):
        world.objects.delete(CONFIG_MAP, "default", obj["metadata"]["name"])
    fill(world, 8)
    page = world.objects.page(CONFIG_MAP, "", Page(limit=limit))
    seen = list(page.items)
    expected = world.objects.page(CONFIG_MAP, "", Page()).items
    for number, verb in writes:
        name = f"c{number:03}"
        exists = name in names(world.objects.page(CONFIG_MAP, "", Page()).items)
        if verb == "delete" and exists:
            world.objects.delete(CONFIG_MAP, "default", name)
        elif verb == "put" and exists:
            world.objects.update(CONFIG_MAP, {**thing(name), "data": {"at": str(world.store.revision)}})
        elif verb == "put":
            world.objects.create(CONFIG_MAP, thing(name))
        if page.token:
            page = world.objects.page(CONFIG_MAP, "", Page(limit=limit, token=page.token))
            seen += page.items
    while page.token:
        page = world.objects.page(CONFIG_MAP, "", Page(limit=limit, token=page.token))
        seen += page.items
    assert seen == expected
