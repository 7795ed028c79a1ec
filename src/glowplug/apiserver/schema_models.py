"""Reads what the installed client libraries know about Kubernetes and KServe objects, without importing them.

Importing `kubernetes.client` or `kserve` costs seconds; their generated model files hold the same facts as plain
text: `openapi_types`, `attribute_map`, a description and a "must not be None" for each field. Two generations of
generator are in use (classes with properties, and pydantic models), and both are read here. Nothing of the
libraries is executed.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from glowplug.errors import ConfigError


@dataclass(frozen=True)
class ModelField:
    """One field: `type` as the generator writes it (`str`, `list[V1Container]`, `dict(str, str)`, `object`)."""

    type: str
    description: str
    is_required: bool


@dataclass(frozen=True)
class Model:
    """One generated class; `fields` by their JSON names, in the order of the file."""

    name: str
    description: str
    fields: Mapping[str, ModelField]
    package: str = ""


class ModelLibrary:
    """The model files of the installed `kubernetes` and `kserve` packages, found by class name and read on demand."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, Path]] = {}
        for package, folder in (("kserve", "models"), ("kubernetes", "client/models")):
            for path in sorted((_package_dir(package) / folder).glob("*.py")):
                # `v1_http_get_action.py` holds V1HTTPGetAction: only the letters can be compared.
                self._files.setdefault(path.stem.replace("_", "").lower(), (package, path))

    def find(self, class_name: str) -> Model | None:
        """The model of that class, or None when the installed release does not have it (or cannot be read)."""
        found = self._files.get(class_name.lower())
        if found is None:
            return None
        package, path = found
        model = read_model(path.read_text(encoding="utf-8"), class_name)
        return None if model is None else replace(model, package=package)


def _package_dir(package: str) -> Path:
    # find_spec on a top-level name locates the package and does not run it.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the Python package {package} is not installed", hint=f"pip install {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def read_model(source: str, class_name: str) -> Model | None:
    """`source` is a generated model file; None when it has no class with both `openapi_types` and `attribute_map`."""
    start = source.find(f"\nclass {class_name}(")
    if start < 0:
        return None
    # Pydantic models end their declarations here; what follows is conversion code, most of the file.
    end = source.find("\n    __properties", start)
    try:
        tree = ast.parse(source[start:end] if end > 0 else source[start:])
    except SyntaxError:
        return None
    declared = next((node for node in tree.body if isinstance(node, ast.ClassDef)), None)
    if declared is None:
        return None
    types = _class_dict(declared, "openapi_types")
    names = _class_dict(declared, "attribute_map")
    if types is None or names is None:
        return None
    notes = {**_property_notes(declared), **_pydantic_notes(declared)}
    fields = {}
    for attribute, type_text in types.items():
        description, is_required = notes.get(attribute, ("", False))
        fields[names.get(attribute, attribute)] = ModelField(type_text, description, is_required)
    return Model(class_name, _class_description(declared), fields)


def _class_description(declared: ast.ClassDef) -> str:
    text = ast.get_docstring(declared) or ""
    head = text.split("Attributes:")[0].strip()
    return "" if head.startswith("NOTE: This class is auto generated") else " ".join(head.split())


def _class_dict(declared: ast.ClassDef, name: str) -> dict[str, str] | None:
    """The literal of `name = {...}` or `name: ClassVar[...] = {...}` in the class body."""
    for node in declared.body:
        if isinstance(node, ast.Assign):
            target: ast.expr = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        else:
            continue
        if isinstance(target, ast.Name) and target.id == name and node.value is not None:
            value = ast.literal_eval(node.value)
            return {str(key): str(item) for key, item in value.items()}
    return None


def _pydantic_notes(declared: ast.ClassDef) -> dict[str, tuple[str, bool]]:
    """Attribute → (description, is required), from `attribute: Type = Field(default=None, description="...")`."""
    notes = {}
    for node in declared.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        call = node.value
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Field"):
            continue
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        text = keywords.get("description")
        description = text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
        is_required = not call.args and "default" not in keywords and "default_factory" not in keywords
        notes[node.target.id] = (description.strip(), is_required)
    return notes


def _property_notes(declared: ast.ClassDef) -> dict[str, tuple[str, bool]]:
    """The same for classes with properties: the getter's docstring, and a setter that refuses None."""
    descriptions: dict[str, str] = {}
    required: set[str] = set()
    for node in declared.body:
        if not isinstance(node, ast.FunctionDef) or not node.decorator_list:
            continue
        decorator = node.decorator_list[0]
        if isinstance(decorator, ast.Name) and decorator.id == "property":
            descriptions[node.name] = _getter_description(ast.get_docstring(node) or "")
        elif isinstance(decorator, ast.Attribute) and decorator.attr == "setter" and _refuses_none(node):
            required.add(node.name)
    return {name: (text, name in required) for name, text in descriptions.items()}


def _getter_description(docstring: str) -> str:
    body = docstring.replace("# noqa: E501", "").split(":return:")[0]
    lines = body.split("\n")[1:]
    return " ".join(" ".join(lines).split())


def _refuses_none(setter: ast.FunctionDef) -> bool:
    return any(
        isinstance(node, ast.Raise) and "must not be `None`" in ast.unparse(node) for node in ast.walk(setter)
    )
