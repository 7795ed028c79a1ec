"""Merging an applied configuration into the live object: server-side apply's union of the two.

Nothing is removed here (`apply.py` does that, from what a manager owned before). Where both set a leaf, the applied
value stays. Keyed lists come out in the applied order, with the live items between them where they stood.
"""

from __future__ import annotations

from typing import Any

from glowplug.apiserver.fieldsets import path_text
from glowplug.apiserver.fieldsets_typed import MISSING, items_by_element
from glowplug.apiserver.listkeys import Shape, ShapeError


def merge(live: Any, applied: Any, shape: Shape) -> Any:
    """The merged value, sharing what it can with both; `ShapeError` if `live` has an item that nothing names."""
    if applied is MISSING:
        return live
    if live is MISSING:
        return applied
    decisive = live if applied is None else applied
    if isinstance(decisive, dict) and not shape.is_atomic:
        return _merge_maps(live, applied, shape)
    if isinstance(decisive, list) and shape.keys is not None:
        return _merge_lists(live, applied, shape)
    return applied


def _merge_maps(live: Any, applied: Any, shape: Shape) -> Any:
    lives = live if isinstance(live, dict) else {}
    applieds = applied if isinstance(applied, dict) else {}
    if not lives and not applieds:
        return applied
    merged = {}
    for name in [*lives, *(name for name in applieds if name not in lives)]:
        merged[name] = merge(lives.get(name, MISSING), applieds.get(name, MISSING), shape.child(name))
    return merged


def _merge_lists(live: Any, applied: Any, shape: Shape) -> Any:
    lives = live if isinstance(live, list) else []
    applieds = applied if isinstance(applied, list) else []
    if not lives and not applieds:
        return applied
    live_items = items_by_element(lives, shape)
    applied_items = {element: items[0] for element, items in items_by_element(applieds, shape).items()}
    merged: list[Any] = []
    for element, occurrence in _merged_order(lives, list(applied_items), shape):
        if element in applied_items:
            before = live_items.get(element, [])
            # Repeated live items have no one value to merge with: the applied one takes their place.
            base = before[0] if len(before) == 1 else MISSING
            merged.append(merge(base, applied_items[element], shape.items or shape))
        else:
            merged.append(live_items[element][occurrence])
    return merged


def _merged_order(lives: list[Any], applied: list[str], shape: Shape) -> list[tuple[str, int]]:
    """The elements of the merged list, each with which of the live items of that name it is.

    Live-only items keep their place before the shared item that they preceded, as long as the applied order of the
    shared items allows it.
    """
    live = [shape.item_element(item) for item in lives]
    is_live, is_applied = set(live), set(applied)
    shared = [element for element in applied if element in is_live]
    order: list[tuple[str, int]] = []
    taken: set[str] = set()
    occurrences: dict[str, int] = {}
    next_live, next_applied = 0, 0
    while next_live < len(live) or next_applied < len(applied):
        here = live[next_live] if next_live < len(live) else None
        wanted = applied[next_applied] if next_applied < len(applied) else None
        if here is not None and here not in is_applied:
            order.append((here, occurrences.get(here, 0)))
            occurrences[here] = occurrences.get(here, 0) + 1
            next_live += 1
            continue
        if here is not None and here != wanted:
            is_shared_left = len(shared) > 0 and wanted is not None
            if is_shared_left and shared[0] != here:
                next_live += 1
                continue
            # A shared item that an earlier turn merged: the applied item after it comes now.
            next_live += here in taken
        if wanted is not None:
            order.append((wanted, 0))
            taken.add(wanted)
            next_applied += 1
            next_live += here == wanted
            if shared and shared[0] == wanted:
                del shared[0]
    return order


def refuse_repeated(applied: Any, shape: Shape, path: tuple[str, ...] = ()) -> None:
    """`ShapeError` if a keyed list or set of `applied` names an item twice, or not at all: whose would it be?"""
    if isinstance(applied, dict) and not shape.is_atomic:
        for name, child in applied.items():
            refuse_repeated(child, shape.child(name), (*path, f"f:{name}"))
    elif isinstance(applied, list) and shape.keys is not None:
        try:
            named = items_by_element(applied, shape)
        except ShapeError as unnamed:
            raise ShapeError(f"{path_text(path)}: {unnamed}") from unnamed
        for element, items in named.items():
            if len(items) > 1:
                raise ShapeError(f"{path_text(path)}: duplicate entries for key {path_text((element,))}")
            refuse_repeated(items[0], shape.items or shape, (*path, element))
