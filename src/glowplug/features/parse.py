"""A feature view file → `FeatureView`, or one `FeatureError` that lists every problem with its file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from glowplug.errors import FeatureError
from glowplug.features import nodes
from glowplug.features.nodes import Mapping, Problems
from glowplug.features.view import (
    API_VERSION,
    KIND,
    Entity,
    EntityType,
    Feature,
    FeatureView,
    Group,
    OnMissing,
    OnStale,
)

DTYPES = ("float32",)
DEFAULT_TIMESTAMP = "event_timestamp"
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,62}")
_VIEW_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FLOAT32_MAX = 3.4028234663852886e38


def read_view(path: Path) -> FeatureView:
    """The view in a file. Raises `FeatureError`: file cannot be read, or all that is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FeatureError(f"feature view {path} cannot be read: {error}") from error
    return parse_view(text, str(path))


def parse_view(text: str, file: str = "feature_view.yaml") -> FeatureView:
    """The view in `text`; `file` is only named in messages. Raises `FeatureError` with every problem at once."""
    problems = Problems(file)
    try:
        node = nodes.compose(text)
    except yaml.YAMLError as error:
        raise FeatureError(_syntax(file, error), hint="one YAML document is expected") from error
    if node is None:
        raise FeatureError(f"{file}:1 is empty, must be a {KIND}")
    view = _view(problems, node, text)
    if problems or view is None:
        raise FeatureError("\n".join(problems.messages()))
    return view


def _syntax(file: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"{file}:{mark.line + 1 if mark else 1} is not YAML: {what}"


def _view(problems: Problems, node: yaml.Node, text: str) -> FeatureView | None:
    top = Mapping.read(problems, node, "")
    if top is None:
        return None
    for field, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        value = top.text(field)
        if value is not None and value != expected:
            problems.add(top.take(field) or node, field, f" = {value}, must be {expected}")
    metadata, spec = top.mapping("metadata"), top.mapping("spec")
    top.done()
    name = _metadata(metadata) if metadata else None
    if spec is None:
        return None
    entities = _entities(spec)
    groups = _groups(spec, {entity.name for entity in entities})
    spec.done()
    return FeatureView(name or "", tuple(entities), tuple(groups), text)


def _metadata(metadata: Mapping) -> str | None:
    name = metadata.text("name")
    if name is not None and not _VIEW_NAME.fullmatch(name):
        metadata.problems.add(
            metadata.node, metadata.at("name"), f" = {name}, must be lower-case letters, digits and '-'"
        )
    for ignored in ("labels", "annotations"):
        metadata.take(ignored, required=False)
    metadata.done()
    return name


def _entities(spec: Mapping) -> list[Entity]:
    entities: list[Entity] = []
    for node, path in spec.items("entities"):
        item = Mapping.read(spec.problems, node, path)
        if item is None:
            continue
        name = _name(item)
        kind = item.choice("type", tuple(each.value for each in EntityType), EntityType.STRING.value)
        item.done()
        if name is not None and _is_new(item, name, (entity.name for entity in entities)):
            entities.append(Entity(name, EntityType(kind)))
    return entities


def _groups(spec: Mapping, entities: set[str]) -> list[Group]:
    groups: list[Group] = []
    features: set[str] = set()
    for node, path in spec.items("groups"):
        item = Mapping.read(spec.problems, node, path)
        group = _group(item, entities, features) if item else None
        if item and group and _is_new(item, group.name, (each.name for each in groups)):
            groups.append(group)
    return groups


def _group(item: Mapping, entities: set[str], taken: set[str]) -> Group | None:
    name = _name(item)
    keys = _keys(item, entities)
    source = _identifier(item, "source", name)
    timestamp = _identifier(item, "timestamp", DEFAULT_TIMESTAMP)
    ttl_s = _ttl(item)
    on_missing = OnMissing(item.choice("onMissing", tuple(each.value for each in OnMissing), "error"))
    on_stale = OnStale(item.choice("onStale", tuple(each.value for each in OnStale), "error"))
    # A default may be asked for by a policy; then each feature must have one.
    needs_default = OnMissing.DEFAULT.value in (on_missing.value, on_stale.value)
    features = _features(item, taken, needs_default=needs_default)
    item.done()
    if name is None or source is None or timestamp is None:
        return None
    return Group(name, keys, source, timestamp, features, ttl_s, on_missing, on_stale)


def _keys(item: Mapping, entities: set[str]) -> tuple[str, ...]:
    keys: list[str] = []
    for node, path, key in item.strings("keys"):
        if key not in entities:
            item.problems.add(
                node, path, f" = {key}, must be an entity: {', '.join(sorted(entities)) or 'none'}"
            )
        elif key in keys:
            item.problems.add(node, path, f" = {key} is given twice")
        keys.append(key)
    return tuple(keys)


def _features(item: Mapping, taken: set[str], *, needs_default: bool) -> tuple[Feature, ...]:
    features: list[Feature] = []
    for node, path in item.items("features"):
        feature = Mapping.read(item.problems, node, path)
        if feature is None:
            continue
        name = _name(feature)
        dtype = feature.choice("dtype", DTYPES, DTYPES[0])
        default = feature.number("default")
        feature.done()
        if default is not None and not (math.isfinite(default) and abs(default) <= _FLOAT32_MAX):
            item.problems.add(node, feature.at("default"), f" = {default}, must be a finite {dtype}")
        if default is None and needs_default:
            item.problems.add(
                node, feature.at("default"), " is missing, and a policy of its group is 'default'"
            )
        if name is not None and _is_new(feature, name, taken):
            taken.add(name)
            features.append(Feature(name, dtype, default))
    return tuple(features)


def _name(item: Mapping) -> str | None:
    return _identifier(item, "name", None)


def _identifier(item: Mapping, field: str, default: str | None) -> str | None:
    """A name that is a column, a table or part of a key as it stands."""
    value = item.text(field, required=default is None and field == "name")
    if value is None:
        return default
    if not _NAME.fullmatch(value):
        node = item.take(field) or item.node
        item.problems.add(node, item.at(field), f" = {value}, must be letters, digits and '_', 63 at most")
        return None
    return value


def _is_new(item: Mapping, name: str, taken: Iterable[str]) -> bool:
    if name in set(taken):
        item.problems.add(item.node, item.at("name"), f" = {name} is taken already, names must be unique")
        return False
    return True


def _ttl(item: Mapping) -> float | None:
    text = item.text("ttl", required=False)
    if text is None:
        return None
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if not 0 < seconds < math.inf:
        node = item.take("ttl") or item.node
        item.problems.add(
            node, item.at("ttl"), f" = {text}, must be a duration over 0 such as 90s, 36h or 7d"
        )
        return None
    return seconds
