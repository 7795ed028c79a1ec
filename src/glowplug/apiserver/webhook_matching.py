"""Which webhooks a write concerns: decisions on its attributes. Kubernetes' rules, `*` and subresources included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from glowplug.apiserver.codec import Object
from glowplug.apiserver.webhook_configurations import ANY, Hook, Rule, Selector
from glowplug.spec.kinds import (
    MUTATING_WEBHOOK_CONFIGURATION,
    NAMESPACE,
    VALIDATING_WEBHOOK_CONFIGURATION,
    Kind,
)
from glowplug.spec.validation import as_object

CREATE, UPDATE, DELETE = "CREATE", "UPDATE", "DELETE"
# A webhook that failed must never stand in the way of its own removal.
_EXEMPT = (MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION)

# Labels of a namespace by its name.
NamespaceLabels = Callable[[str], Mapping[str, str]]


@dataclass(frozen=True)
class Attributes:
    """One write: `new` is None for DELETE, `old` for CREATE; `options` as the client's, for the webhook to read."""

    kind: Kind
    namespace: str
    name: str
    operation: str
    subresource: str = ""
    new: Object | None = None
    old: Object | None = None
    is_dry_run: bool = False
    options: Object = field(default_factory=dict)


def is_ruled(hook: Hook, asked: Attributes) -> bool:
    """Whether one of the webhook's rules covers the kind and what is done with it, whatever the object holds."""
    return asked.kind not in _EXEMPT and any(_covers(rule, asked) for rule in hook.rules)


def is_selected(hook: Hook, asked: Attributes, labels_of: NamespaceLabels) -> bool:
    """Whether both selectors of the webhook hold; an object counts as it was and as it becomes."""
    if hook.namespaces and not _holds(hook.namespaces, _namespace_labels(asked, labels_of)):
        return False
    if not hook.objects:
        return True
    return any(_holds(hook.objects, _labels(obj)) for obj in (asked.new, asked.old) if obj is not None)


def _covers(rule: Rule, asked: Attributes) -> bool:
    kind = asked.kind
    scope = "Namespaced" if kind.is_namespaced else "Cluster"
    return (
        _has(rule.groups, kind.group)
        and _has(rule.versions, kind.version)
        and _has(rule.operations, asked.operation)
        and rule.scope in (ANY, scope)
        and any(_is_resource(one, kind.plural, asked.subresource) for one in rule.resources)
    )


def _has(values: Iterable[str], value: str) -> bool:
    return any(one in (ANY, value) for one in values)


def _is_resource(pattern: str, plural: str, subresource: str) -> bool:
    """`pods`, `pods/status`, `pods/*`, `*/status`, `*/*`; without a slash no subresource is meant."""
    resource, _, sub = pattern.partition("/")
    return resource in (ANY, plural) and sub in (ANY, subresource)


def _holds(selector: Selector, labels: Mapping[str, str] | None) -> bool:
    return labels is None or all(one.matches(labels) for one in selector)


def _namespace_labels(asked: Attributes, labels_of: NamespaceLabels) -> Mapping[str, str] | None:
    """None for what is in no namespace: a selector of namespaces never spares it."""
    if asked.kind is NAMESPACE:
        is_written = asked.new is not None and not asked.subresource
        return _labels(asked.new) if is_written and asked.new is not None else labels_of(asked.name)
    return labels_of(asked.namespace) if asked.kind.is_namespaced else None


def _labels(obj: Object) -> Mapping[str, str]:
    # Another webhook may have left anything there; that it is wrong is said once all were called.
    labels = as_object(as_object(obj.get("metadata")).get("labels"))
    return {key: value for key, value in labels.items() if isinstance(value, str)}
