"""Strategic merge patch: merge patch with lists that merge by key, and directives. Built-in kinds only.

How a list merges is in `listkeys.py`; what it does not name is replaced. The directives are Kubernetes':
`$patch: replace|delete`, `$retainKeys`, `$deleteFromPrimitiveList/<list>` and `$setElementOrder/<list>`.
Kubernetes refuses this format for custom resources (415), so those never come here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any

from glowplug.apiserver.listkeys import PatchList, canonical_json, patch_list
from glowplug.errors import BadRequest

Object = dict[str, Any]

_DIRECTIVE = "$patch"
_RETAIN_KEYS = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def strategic_merge_patch(obj: Object, patch: object) -> Object:
    """`obj` with the patch merged in; BadRequest if a directive or a list of the patch makes no sense."""
    if not isinstance(patch, dict):
        raise BadRequest("a strategic merge patch is an object")
    return _merge_maps(copy.deepcopy(obj), copy.deepcopy(patch))


def _merge_maps(original: Object, patch: Object) -> Object:
    if _DIRECTIVE in patch:
        return _replaced_map(patch)
    _retain_keys(original, patch)
    for name in [name for name in patch if name.startswith(_ORDER)]:
        _merge_ordered(original, patch, name.removeprefix(_ORDER), patch.pop(name))
    for name, value in patch.items():
        if name.startswith(_DELETE_FROM):
            _delete_from(original, name.removeprefix(_DELETE_FROM), value)
        elif value is None:
            original.pop(name, None)
        else:
            original[name] = _merge_values(name, original.get(name), value)
            if original[name] is _DROPPED:
                del original[name]
    return original


def _replaced_map(patch: Object) -> Object:
    directive = patch.pop(_DIRECTIVE)
    if directive == "replace":
        return patch
    if directive == "delete":
        return {}
    raise BadRequest(f"unknown patch type found: {directive!r} in map, must be replace or delete")


_DROPPED: Any = object()


def _merge_values(name: str, original: Any, value: Any) -> Any:
    """The merged value under `name`; `_DROPPED` if the patch only says to delete what is not there."""
    if isinstance(original, dict) and isinstance(value, dict):
        return _merge_maps(original, value)
    if isinstance(original, list) and isinstance(value, list):
        rule = patch_list(name)
        return _merge_lists(name, original, value, rule) if rule else value
    return _plain(value)


def _plain(value: Any) -> Any:
    """A value that the object lacks, without nulls and directives, which have nothing to act on."""
    if isinstance(value, dict):
        if _DIRECTIVE in value:
            return _DROPPED
        plain = {
            key: _plain(child)
            for key, child in value.items()
            if child is not None and not key.startswith((_RETAIN_KEYS, _DELETE_FROM, _ORDER))
        }
        return {key: child for key, child in plain.items() if child is not _DROPPED}
    if isinstance(value, list):
        return [child for child in map(_plain, value) if child is not _DROPPED]
    return value


def _retain_keys(original: Object, patch: Object) -> None:
    """`$retainKeys` names all keys that the merged map may have."""
    if _RETAIN_KEYS not in patch:
        return
    retained = patch.pop(_RETAIN_KEYS)
    prefixes = (_DELETE_FROM, _ORDER)
    set_here = {name for name, value in patch.items() if value is not None and not name.startswith(prefixes)}
    if not isinstance(retained, list) or not all(isinstance(key, str) for key in retained):
        raise BadRequest("$retainKeys must be a list of strings")
    if not set_here <= set(retained):
        extra = ", ".join(sorted(set_here - set(retained)))
        raise BadRequest(f"$retainKeys must name every key that the patch sets, it lacks {extra}")
    for name in original.keys() - set(retained):
        del original[name]


def _delete_from(original: Object, name: str, values: Any) -> None:
    if not isinstance(values, list):
        raise BadRequest(f"{_DELETE_FROM}{name} must be a list")
    if isinstance(original.get(name), list):
        gone = {canonical_json(value) for value in values}
        original[name] = [value for value in original[name] if canonical_json(value) not in gone]


def _merge_ordered(original: Object, patch: Object, name: str, order: Any) -> None:
    """Merges the list `name` and puts it into the order that `$setElementOrder/<name>` gives."""
    if not isinstance(order, list):
        raise BadRequest(f"{_ORDER}{name} must be a list")
    rule = patch_list(name) or PatchList(None)
    before, given = original.get(name), patch.pop(name, None)
    for found in (before, given):
        if found is not None and not isinstance(found, list):
            raise BadRequest(f"{_ORDER}{name} orders a list, {name} is none")
    if before is None and given is None:
        return
    _check_order(name, given or [], order, rule)
    if before is None:
        merged = _plain(given)
    elif given is None:
        merged = before
    else:
        merged = _merge_lists(name, before, given, rule) if patch_list(name) else given
    original[name] = _ordered(merged, order, before or [], rule)


def _check_order(name: str, given: list[Any], order: list[Any], rule: PatchList) -> None:
    """What the patch sets must be in the order, and in that order."""
    identify = _identifier(name, rule)
    left = iter([identify(item) for item in order])
    for item in given:
        if isinstance(item, dict) and _DIRECTIVE in item:
            continue
        if order and identify(item) not in left:
            raise BadRequest(f"the order in the patch of {name} doesn't match {_ORDER}{name}")


def _merge_lists(name: str, original: list[Any], patch: list[Any], rule: PatchList) -> list[Any]:
    if rule.key is None:
        merged = list({canonical_json(value): value for value in [*original, *patch]}.values())
        return _ordered(merged, patch, original, rule)
    identify = _identifier(name, rule)
    if not all(isinstance(item, dict) for item in [*original, *patch]):
        raise BadRequest(f"{name} merges by {rule.key}, its items must be objects")
    original, patch = _after_directives(original, patch, identify)
    merged = list(original)
    for item in patch:
        same_key = [at for at, found in enumerate(merged) if identify(found) == identify(item)]
        if same_key:
            merged[same_key[0]] = _merge_maps(merged[same_key[0]], item)
        else:
            merged.append(_plain(item))
    return _ordered(merged, patch, original, rule)


_Identify = Callable[[Any], Hashable]


def _after_directives(
    original: list[Any], patch: list[Any], identify: _Identify
) -> tuple[list[Any], list[Any]]:
    """The list without the items that the patch deletes (all, if it replaces), and the patch without directives."""
    plain = [item for item in patch if _DIRECTIVE not in item]
    is_replaced = False
    for item in patch:
        directive = item.get(_DIRECTIVE)
        if directive == "delete":
            original = [found for found in original if identify(found) != identify(item)]
        elif directive == "replace":
            is_replaced = True
        elif directive is not None:
            raise BadRequest(f"unknown patch type found: {directive!r} in list, must be replace or delete")
    return ([], plain) if is_replaced else (original, plain)


def _identifier(name: str, rule: PatchList) -> _Identify:
    """What tells items of the list apart: the value of its merge key, or a scalar itself."""

    def identify(item: Any) -> Hashable:
        if rule.key is None:
            return canonical_json(item)
        if not isinstance(item, dict):
            raise BadRequest(f"{name} merges by {rule.key}, its items must be objects")
        if rule.key not in item:
            raise BadRequest(f"map: {canonical_json(item)} does not contain declared merge key: {rule.key}")
        return canonical_json(item[rule.key])

    return identify


def _ordered(merged: list[Any], order: list[Any], before: list[Any], rule: PatchList) -> list[Any]:
    """The merged items: those in `order` as it has them, the others between them as they stood `before`."""
    identify = _identifier("list", rule)
    wanted = {identify(item): at for at, item in reversed(list(enumerate(order)))}
    stood = {identify(item): at for at, item in reversed(list(enumerate(before)))}
    ordered = sorted(
        (item for item in merged if identify(item) in wanted), key=lambda item: wanted[identify(item)]
    )
    others = [item for item in merged if identify(item) not in wanted]
    result: list[Any] = []
    for item in ordered:
        place = stood.get(identify(item), -1)
        while others and place >= 0 and stood.get(identify(others[0]), place) < place:
            result.append(others.pop(0))
        result.append(item)
    return result + others
