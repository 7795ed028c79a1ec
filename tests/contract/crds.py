"""The real CRDs, where this computer has their Go modules: what a cluster's API server would check of an object.

They are read from the Go module cache, or fetched into it by `go mod download`, which checks them against Go's checksum
database. Where there is no Go, or no way to its proxy, None: the caller says so and skips.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import jsonschema
import yaml

Object = dict[str, Any]
EVENTING = ("knative.dev/eventing", "v0.48.1", "config/core/resources")
SERVING = ("knative.dev/serving", "v0.48.1", "config/core/300-resources")
ARGO = ("github.com/argoproj/argo-workflows/v3", "v3.7.3", "manifests/base/crds/full")
_TIMEOUT_S = 120
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FREE_FORM = "x-kubernetes-preserve-unknown-fields"


@functools.cache
def schema_of(module: tuple[str, str, str], api_version: str, kind: str) -> Object | None:
    """The schema of a kind; None where the module cannot be had, or has no such kind."""
    folder = _folder(module)
    if folder is None:
        return None
    group, _, version = api_version.partition("/")
    # Full CRDs are megabytes: only the file of the kind is read.
    declared = re.compile(rf"^ +kind: {kind}$", re.MULTILINE)
    for path in sorted(folder.glob("*.yaml")):
        text = path.read_text()
        if declared.search(text) is None:
            continue
        for document in yaml.load_all(text, _LOADER):
            spec = (document or {}).get("spec", {})
            if spec.get("group") == group and spec["names"]["kind"] == kind:
                return next(
                    each["schema"]["openAPIV3Schema"] for each in spec["versions"] if each["name"] == version
                )
    return None


def is_there(module: tuple[str, str, str]) -> bool:
    """Whether the module can be had."""
    return _folder(module) is not None


def faults(schema: Object, target: Object) -> list[str]:
    """What is wrong with an object; a field that the schema does not know is wrong, too."""
    validator = jsonschema.Draft202012Validator(_strict(schema))
    return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(target)]


@functools.cache
def _folder(module: tuple[str, str, str]) -> pathlib.Path | None:
    path, version, inside = module
    go = shutil.which("go")
    if go is None:
        return None
    asked = [go, "mod", "download", "-json", f"{path}@{version}"]
    try:
        ran = subprocess.run(
            asked,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            cwd="/",
            env=_environment(),
        )
        return pathlib.Path(json.loads(ran.stdout)["Dir"]) / inside
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None


def _environment() -> dict[str, str]:
    return {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "on", "GOWORK": "off"}


def _strict(schema: Any, is_top: bool = True) -> Any:
    """As an API server reads it: what is not declared is refused, unless it is said to be free."""
    if isinstance(schema, list):
        return [_strict(each, is_top=False) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value, is_top=False) for key, value in schema.items() if not key.startswith("x-")}
    if isinstance(schema.get("properties"), dict):
        made["properties"] = {
            name: _strict(each, is_top=False) for name, each in schema["properties"].items()
        }
        if is_top:
            # Every object has them, whether its schema says more of them or not.
            made["properties"] |= {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {},
            }
        if not schema.get(_FREE_FORM) and "additionalProperties" not in schema:
            made["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        made = {key: value for key, value in made.items() if key not in ("type", "anyOf")}
    made.pop("format", None)
    return made
