"""MutatingWebhookConfiguration and ValidatingWebhookConfiguration: defaults, validation, and webhooks as values.

The rules and messages are Kubernetes' (pkg/apis/admissionregistration). What this machine cannot do is refused when
the configuration is written, never ignored: a webhook behind a cluster's Service cannot be reached from here, and
`matchConditions` need CEL.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from glowplug.apiserver.codec import Object, decode
from glowplug.apiserver.selectors import Requirement
from glowplug.errors import Problem
from glowplug.spec.validation import (
    DNS_1123_SUBDOMAIN,
    DUPLICATE,
    LABEL_VALUE,
    as_int,
    as_list,
    as_object,
    as_text,
    forbidden,
    invalid,
    qualified_name_faults,
    required,
    under,
    unsupported,
)

REVIEW_VERSION = "v1"
ANY = "*"
_OPERATIONS = (ANY, "CONNECT", "CREATE", "DELETE", "UPDATE")
_CHOICES = {
    "failurePolicy": ("Fail", "Ignore"),
    "matchPolicy": ("Equivalent", "Exact"),
    "reinvocationPolicy": ("IfNeeded", "Never"),
    "sideEffects": ("None", "NoneOnDryRun"),
}
# The lists of a rule; what is in them, where `*` stands alone.
_RULED = {
    "apiGroups": "API groups",
    "apiVersions": "API versions",
    "operations": "operations",
    "resources": "",
}
_SCOPES = (ANY, "Cluster", "Namespaced")
_SELECTORS = ("namespaceSelector", "objectSelector")
_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!exists"}
_MOST_SECONDS = 30

NO_SERVICES = (
    "there are no cluster services on the local machine: give `url`, as in https://127.0.0.1:9443/path, "
    "and a `caBundle` for its certificate"
)
NO_CEL = (
    "the local machine does not evaluate CEL: a webhook that must not see all that `rules` match can allow it"
)

Selector = tuple[Requirement, ...]


@dataclass(frozen=True)
class Rule:
    """What a webhook wants to see; `*` in any of them is all."""

    groups: tuple[str, ...]
    versions: tuple[str, ...]
    operations: tuple[str, ...]
    resources: tuple[str, ...]
    scope: str


@dataclass(frozen=True)
class Hook:
    """One webhook: `ca` is PEM, empty for the system's authorities; `is_optional` is failurePolicy Ignore."""

    name: str
    url: str
    ca: bytes
    rules: tuple[Rule, ...]
    namespaces: Selector
    objects: Selector
    timeout_s: int
    is_optional: bool
    is_reinvoked: bool


@lru_cache(maxsize=256)
def hooks_of(raw: bytes) -> tuple[Hook, ...]:
    """The webhooks of a stored configuration, in its order."""
    return tuple(_hook(one) for one in decode(raw).get("webhooks") or [])


def _hook(one: Object) -> Hook:
    client = one["clientConfig"]
    return Hook(
        name=one["name"],
        url=client["url"],
        ca=base64.b64decode(client.get("caBundle") or ""),
        rules=tuple(_rule(rule) for rule in one.get("rules") or []),
        namespaces=_requirements(one.get("namespaceSelector") or {}),
        objects=_requirements(one.get("objectSelector") or {}),
        timeout_s=one["timeoutSeconds"],
        is_optional=one["failurePolicy"] == "Ignore",
        is_reinvoked=one.get("reinvocationPolicy") == "IfNeeded",
    )


def _rule(rule: Object) -> Rule:
    return Rule(
        tuple(rule["apiGroups"]),
        tuple(rule["apiVersions"]),
        tuple(rule["operations"]),
        tuple(rule["resources"]),
        rule["scope"],
    )


def _requirements(selector: Object) -> Selector:
    return (
        *(Requirement(key, "=", frozenset((value,))) for key, value in _labels(selector)),
        *(
            Requirement(one["key"], _OPERATORS[one["operator"]], frozenset(one.get("values") or ()))
            for one in selector.get("matchExpressions") or []
        ),
    )


def _labels(selector: Object) -> list[tuple[str, Any]]:
    return list(as_object(selector.get("matchLabels")).items())


def default_mutating(obj: Object) -> Object:
    """A MutatingWebhookConfiguration with Kubernetes' defaults."""
    obj = default_validating(obj)
    for hook in as_list(obj.get("webhooks")):
        if isinstance(hook, dict):
            _default(hook, "reinvocationPolicy", "Never")
    return obj


def default_validating(obj: Object) -> Object:
    """A ValidatingWebhookConfiguration with Kubernetes' defaults."""
    obj = copy.deepcopy(obj)
    for hook in as_list(obj.get("webhooks")):
        if not isinstance(hook, dict):
            continue
        _default(hook, "failurePolicy", "Fail")
        _default(hook, "matchPolicy", "Equivalent")
        _default(hook, "timeoutSeconds", 10)
        for selector in _SELECTORS:
            _default(hook, selector, {})
        for rule in as_list(hook.get("rules")):
            if isinstance(rule, dict):
                _default(rule, "scope", ANY)
    return obj


def _default(obj: Object, key: str, value: object) -> None:
    if obj.get(key) is None:
        obj[key] = value


def validate(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Everything that is wrong with a configuration of either kind."""
    del old
    problems: list[Problem] = []
    names: set[str] = set()
    for index, hook in enumerate(as_list(obj.get("webhooks"))):
        path, hook = f"webhooks[{index}]", as_object(hook)
        name = as_text(hook.get("name"))
        if name and name in names:
            problems.append(Problem(f"{path}.name", f'Duplicate value: "{name}"', DUPLICATE))
        names.add(name)
        problems += under(path, _hook_problems(hook))
    return tuple(problems)


def _hook_problems(hook: Object) -> Iterator[Problem]:
    yield from _name_problems(as_text(hook.get("name")))
    yield from under("clientConfig", _client_problems(as_object(hook.get("clientConfig"))))
    for index, rule in enumerate(as_list(hook.get("rules"))):
        yield from under(f"rules[{index}]", _rule_problems(as_object(rule)))
    for key, choices in _CHOICES.items():
        if key in hook and hook[key] not in choices:
            yield unsupported(key, hook[key], choices)
    timeout = as_int(hook.get("timeoutSeconds"))
    if timeout is not None and not 1 <= timeout <= _MOST_SECONDS:
        yield invalid(
            "timeoutSeconds", timeout, f"the timeout value must be between 1 and {_MOST_SECONDS} seconds"
        )
    for key in _SELECTORS:
        yield from under(key, _selector_problems(as_object(hook.get(key))))
    versions = as_list(hook.get("admissionReviewVersions"))
    if REVIEW_VERSION not in versions:
        yield invalid(
            "admissionReviewVersions",
            versions,
            f"must include {REVIEW_VERSION}, the version that is sent here",
        )
    if hook.get("matchConditions"):
        yield forbidden("matchConditions", NO_CEL)


def _name_problems(name: str) -> Iterator[Problem]:
    if not name:
        yield required("name")
    elif faults := DNS_1123_SUBDOMAIN.faults(name):
        yield from (invalid("name", name, fault) for fault in faults)
    elif name.count(".") < 2:
        yield invalid("name", name, "should be a domain with at least three segments separated by dots")


def _client_problems(client: Object) -> Iterator[Problem]:
    url, has_service = as_text(client.get("url")), client.get("service") is not None
    if has_service:
        yield forbidden("service", NO_SERVICES)
    if bool(url) == has_service:
        yield required("", "exactly one of url or service is required")
    if not url:
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        yield invalid("url", url, f"url must be a valid URL: {error}")
        return
    if parts.scheme != "https":
        yield invalid(
            "url", url, "'https' is the only allowed URL scheme; desired format: https://host[/path]"
        )
    if not host:
        yield invalid("url", url, "host must be specified; desired format: https://host[/path]")
    for what, is_there in (
        ("user information", "@" in parts.netloc),
        ("fragments", "#" in url),
        ("query parameters", "?" in url),
    ):
        if is_there:
            yield invalid("url", url, f"{what} are not permitted in the URL")


def _rule_problems(rule: Object) -> Iterator[Problem]:
    for key, words in _RULED.items():
        values = as_list(rule.get(key))
        if not values:
            yield required(key)
        if words and ANY in values and len(values) > 1:
            yield invalid(key, values, f"if '*' is present, must not specify other {words}")
    for index, operation in enumerate(as_list(rule.get("operations"))):
        if operation not in _OPERATIONS:
            yield unsupported(f"operations[{index}]", operation, _OPERATIONS)
    resources = as_list(rule.get("resources"))
    if "*/*" in resources and len(resources) > 1:
        yield invalid("resources", resources, "if '*/*' is present, must not specify other resources")
    if ANY in resources and any(as_text(one).count("/") == 0 for one in resources if one != ANY):
        why = "if '*' is present, must not specify other resources without subresources"
        yield invalid("resources", resources, why)
    if "scope" in rule and rule["scope"] not in _SCOPES:
        yield unsupported("scope", rule["scope"], _SCOPES)


def _selector_problems(selector: Object) -> Iterator[Problem]:
    for key, value in _labels(selector):
        yield from (invalid("matchLabels", key, fault) for fault in qualified_name_faults(key))
        yield from (
            invalid(f"matchLabels[{key}]", value, fault) for fault in LABEL_VALUE.faults(as_text(value))
        )
    for index, one in enumerate(as_list(selector.get("matchExpressions"))):
        yield from under(f"matchExpressions[{index}]", _expression_problems(as_object(one)))


def _expression_problems(one: Object) -> Iterator[Problem]:
    operator, values = one.get("operator"), as_list(one.get("values"))
    yield from (
        invalid("key", one.get("key"), fault) for fault in qualified_name_faults(as_text(one.get("key")))
    )
    if operator not in _OPERATORS:
        yield unsupported("operator", operator, _OPERATORS)
    elif operator in ("In", "NotIn") and not values:
        yield required("values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist") and values:
        yield forbidden("values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
