"""A Trigger's filter as one function of an event's attributes, made once for a trigger. Pure.

Source: knative.dev/eventing pkg/eventfilter/subscriptionsapi. What filters nothing lets everything pass, negated too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from glowplug.spec.cesql import compile_filter
from glowplug.spec.eventing import Filter
from glowplug.wire.events import Value, text_of

Predicate = Callable[[Mapping[str, Value]], bool]


def passes_all(attributes: Mapping[str, Value]) -> bool:
    """Of a trigger that filters nothing."""
    return True


def compiled(filter: Filter) -> Predicate:
    """Whether an event with these attributes passes. Raises SqlProblem."""
    return _compiled(filter) or passes_all


def _compiled(filter: Filter) -> Predicate | None:
    """None for what filters nothing."""
    if filter.exact:
        return _compared(filter.exact, str.__eq__)
    if filter.prefix:
        return _compared(filter.prefix, str.startswith)
    if filter.suffix:
        return _compared(filter.suffix, str.endswith)
    if filter.all:
        return _all([_compiled(each) for each in filter.all])
    if filter.any:
        return _any([_compiled(each) for each in filter.any])
    if filter.negated is not None:
        return _negated(_compiled(filter.negated))
    return compile_filter(filter.cesql) if filter.cesql else None


def _compared(wanted: Mapping[str, str], holds: Callable[[str, str], bool]) -> Predicate:
    pairs = tuple(wanted.items())

    def passes(attributes: Mapping[str, Value]) -> bool:
        return all(name in attributes and holds(text_of(attributes[name]), value) for name, value in pairs)

    return passes


def _all(filters: Sequence[Predicate | None]) -> Predicate | None:
    real = [each for each in filters if each is not None]
    return (lambda attributes: all(each(attributes) for each in real)) if real else None


def _any(filters: Sequence[Predicate | None]) -> Predicate | None:
    real = [each for each in filters if each is not None]
    if len(real) < len(filters):
        return None
    return lambda attributes: any(each(attributes) for each in real)


def _negated(inner: Predicate | None) -> Predicate | None:
    return None if inner is None else lambda attributes: not inner(attributes)
