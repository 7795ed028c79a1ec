"""What field sets say about objects: the fields of one, the differences of two, an object without some fields.

The walks follow structured-merge-diff's (`ToFieldSet`, `Compare`, `RemoveItems`), so that what we write into
`managedFields` is what a cluster would. They read JSON values with a `Shape` and change nothing in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from glowplug.apiserver.fieldsets import FieldSet, Path, Tree, encode, owns_root
from glowplug.apiserver.listkeys import Shape

# An absent field; JSON's null is a value.
MISSING: Final = object()

_Name = TypeVar("_Name")


def fields_of(value: object, shape: Shape) -> FieldSet:
    """The fields that a manager owns who applies `value`; `ShapeError` if a keyed list has an item without keys."""
    found: set[Path] = set()
    _fields_into(found, value, shape, ())
    found.discard(())
    return frozenset(found)


def _fields_into(found: set[Path], value: object, shape: Shape, path: Path) -> None:
    if isinstance(value, dict) and not shape.is_atomic:
        for name, child in value.items():
            below = (*path, f"f:{name}")
            _fields_into(found, child, shape.child(name), below)
            if child is None or child == {} or not shape.has_field(name):
                found.add(below)
    elif isinstance(value, list) and shape.keys is not None:
        for element, items in items_by_element(value, shape).items():
            below = (*path, element)
            found.add(below)
            if len(items) == 1:
                _fields_into(found, items[0], shape.items or shape, below)
    else:
        found.add(path)


def empty_lists_of(value: object, shape: Shape, path: Path = ()) -> Iterator[Path]:
    """The keyed lists and sets without any item: whoever applies one owns no field by it, yet it is there."""
    if isinstance(value, dict) and not shape.is_atomic:
        for name, child in value.items():
            yield from empty_lists_of(child, shape.child(name), (*path, f"f:{name}"))
    elif isinstance(value, list) and shape.keys is not None:
        if not value:
            yield path
        for element, items in items_by_element(value, shape).items():
            yield from empty_lists_of(items[0], shape.items or shape, (*path, element))


def items_by_element(items: list[Any], shape: Shape) -> dict[str, list[Any]]:
    """The items of a keyed list or a set under their path elements, in order; more than one where they repeat."""
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(shape.item_element(item), []).append(item)
    return found


@dataclass(frozen=True)
class Comparison:
    """The fields by which a new object differs from an old one; no field is in two of the sets."""

    added: FieldSet
    modified: FieldSet
    removed: FieldSet

    @property
    def written(self) -> FieldSet:
        """The fields that the new object has and the old one had not, or had with another value."""
        return self.added | self.modified

    def only(self, keep: Callable[[Path], bool]) -> Comparison:
        """The same differences within the fields that `keep` accepts."""
        return Comparison(
            added=frozenset(filter(keep, self.added)),
            modified=frozenset(filter(keep, self.modified)),
            removed=frozenset(filter(keep, self.removed)),
        )


def compare(old: object, new: object, shape: Shape) -> Comparison:
    """The differences from `old` to `new`; `ShapeError` if a keyed list has an item without keys."""
    walk = _Compare()
    walk.values(old, new, shape, ())
    sets = (walk.added, walk.modified, walk.removed)
    for found in sets:
        found.discard(())
    return Comparison(*(frozenset(found) for found in sets))


class _Compare:
    """One walk down two values at once, collecting what differs."""

    def __init__(self) -> None:
        self.added: set[Path] = set()
        self.modified: set[Path] = set()
        self.removed: set[Path] = set()

    def values(self, old: object, new: object, shape: Shape, path: Path) -> None:
        forms = {_form(old), _form(new)} - {None}
        is_leaf = False
        for form in forms or {"leaf"}:
            is_leaf |= self._as(form, old, new, shape, path)
        if is_leaf:
            self._leaf(old, new, path)
        elif old is MISSING:
            self.added.add(path)
        elif new is MISSING:
            self.removed.add(path)

    def _as(self, form: str | None, old: object, new: object, shape: Shape, path: Path) -> bool:
        """Descends into both as maps or as lists; True if they are one value instead."""
        if form == "map" and not shape.is_atomic:
            return self._maps(old, new, shape, path)
        if form == "list" and shape.keys is not None:
            return self._lists(old, new, shape, path)
        return True

    def _leaf(self, old: object, new: object, path: Path) -> None:
        if old is MISSING:
            self.added.add(path)
        elif new is MISSING:
            self.removed.add(path)
        elif not same(old, new):
            self.modified.add(path)

    def _maps(self, old: object, new: object, shape: Shape, path: Path) -> bool:
        olds = old if isinstance(old, dict) else {}
        news = new if isinstance(new, dict) else {}
        for name in olds.keys() | news.keys():
            below = (*path, f"f:{name}")
            self.values(olds.get(name, MISSING), news.get(name, MISSING), shape.child(name), below)
        return not olds and not news

    def _lists(self, old: object, new: object, shape: Shape, path: Path) -> bool:
        olds = items_by_element(old, shape) if isinstance(old, list) else {}
        news = items_by_element(new, shape) if isinstance(new, list) else {}
        for element in olds.keys() | news.keys():
            self._items(olds.get(element, []), news.get(element, []), shape, (*path, element))
        return not olds and not news

    def _items(self, olds: list[Any], news: list[Any], shape: Shape, path: Path) -> None:
        """Items under one element. Repeated ones (only old writes leave them) count as one value."""
        item_shape = shape.items or shape
        if len(olds) <= 1 and len(news) <= 1:
            old = olds[0] if olds else MISSING
            self.values(old, news[0] if news else MISSING, item_shape, path)
        elif len(olds) > 1 and len(news) > 1:
            if not same(olds, news):
                self.modified.add(path)
        elif len(olds) > 1:
            if news:
                self.values(MISSING, news[0], item_shape, path)
            self.removed.add(path)
        else:
            if olds:
                self.values(olds[0], MISSING, item_shape, path)
            self.added.add(path)


def _form(value: object) -> str | None:
    """What a value can be walked as; None for null and absent ones, which take the other side's form."""
    if isinstance(value, dict):
        return "map"
    if isinstance(value, list):
        return "list"
    return None if value is None or value is MISSING else "leaf"


def same(one: object, other: object) -> bool:
    """Equality of JSON values: 1 equals 1.0, but not true, as Python would have it."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def without(value: Any, paths: FieldSet, shape: Shape) -> Any:
    """`value` without these fields, and without what lies below them.

    A map or list that loses everything stays, empty, unless it is among `paths` itself.
    """
    return _without(value, encode(paths), shape) if paths else value


def _without(value: Any, tree: Tree, shape: Shape) -> Any:
    if isinstance(value, dict) and not shape.is_atomic:
        named = ((name, child, f"f:{name}", shape.child(name)) for name, child in value.items())
        return dict(_kept(named, tree))
    if isinstance(value, list) and shape.keys is not None:
        items = ((None, item, shape.item_element(item), shape.items or shape) for item in value)
        return [kept for _, kept in _kept(items, tree)]
    return value


def _kept(children: Iterable[tuple[_Name, Any, str, Shape]], tree: Tree) -> Iterator[tuple[_Name, Any]]:
    """The children whose elements are not in `tree`, each without what is in the subtree there."""
    for name, child, element, shape in children:
        subtree = tree.get(element)
        if subtree is None:
            yield name, child
        elif not owns_root(subtree):
            yield name, _without(child, subtree, shape)
