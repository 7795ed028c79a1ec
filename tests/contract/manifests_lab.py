"""The manifests as the tests read them: built by the real kustomize, once each."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import yaml

Object = dict[str, Any]

ROOT = pathlib.Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
KUBECTL = pathlib.Path(sys.executable).parent / "kubectl"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
# What is on a cluster before the bundle: the namespaces that the platform brings, and every namespace's own.
PLATFORM_NAMESPACES = {"kserve", "knative-serving"}


def kustomizations() -> list[pathlib.Path]:
    """Every file of that name in the bundle."""
    folders = (
        *(MANIFESTS, ROOT / "predictors", ROOT / "transformers"),
        *(ROOT / "eventing", ROOT / "pipelines"),
    )
    return sorted(path for folder in folders for path in folder.rglob("kustomization.yaml"))


def is_component(path: pathlib.Path) -> bool:
    return bool(yaml.safe_load(path.read_text())["kind"] == "Component")


def urls(path: pathlib.Path) -> list[str]:
    """The resources that come from elsewhere."""
    resources = yaml.safe_load(path.read_text()).get("resources", ())
    return [each for each in resources if "://" in each]


@functools.cache
def built(folder: pathlib.Path) -> tuple[Object, ...]:
    """What kustomize makes of a folder. Raises AssertionError with what it says."""
    made = subprocess.run(
        [str(KUBECTL), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return tuple(document for document in yaml.safe_load_all(made.stdout) if document)


@functools.cache
def overlay(name: str) -> tuple[Object, ...]:
    return built(MANIFESTS / "overlays" / name)


def with_component(folder: pathlib.Path, scratch: pathlib.Path) -> tuple[Object, ...]:
    """The base and the flights service with one component."""
    resources = [MANIFESTS / "base", MANIFESTS / "base/flights"]
    (scratch / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [_relative(path, scratch) for path in resources],
                "components": [_relative(folder, scratch)],
            }
        )
    )
    return built(scratch)


def _relative(path: pathlib.Path, start: pathlib.Path) -> str:
    ups = "/".join([".."] * len(start.resolve().relative_to("/").parts))
    return f"{ups}/{path.resolve().relative_to('/')}"


def key(target: Object) -> tuple[str, str, str]:
    """Kind, namespace, name."""
    metadata = target["metadata"]
    return target["kind"], metadata.get("namespace", ""), metadata["name"]


def of_kind(objects: tuple[Object, ...], *kinds: str) -> list[Object]:
    """Kubernetes' own Services where `Service` is asked for, not Knative's."""
    return [each for each in objects if each["kind"] in kinds and not is_knative_service(each)]


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[Object, Object]]:
    """Each object that makes pods, and its pod spec."""
    for each in objects:
        yield from ((each, pod) for pod in _pods_of(each))


def _pods_of(each: Object) -> Iterator[Object]:
    kind, spec = each["kind"], each.get("spec", {})
    if kind in ("Deployment", "StatefulSet", "Job", "ContainerSource") or is_knative_service(each):
        yield spec["template"]["spec"]
    elif kind == "CronJob":
        yield spec["jobTemplate"]["spec"]["template"]["spec"]
    elif kind == "JobSink":
        yield spec["job"]["spec"]["template"]["spec"]
    elif kind == "ClusterServingRuntime":
        yield spec
    elif kind == "InferenceService":
        yield from (spec[component] for component in ("predictor", "transformer") if component in spec)
    elif kind == "WorkflowTemplate":
        # A template's container runs in a pod of its own, under what the workflow says of all of them.
        of_all = {"securityContext": spec.get("securityContext", {})}
        yield from (
            {
                **of_all,
                "containers": [{"name": part["name"], **part["container"]}],
                "volumes": part["volumes"],
            }
            for part in spec["templates"]
            if "container" in part
        )


def is_knative_service(each: Object) -> bool:
    return bool(each["kind"] == "Service" and each["apiVersion"] == "serving.knative.dev/v1")


def containers(pod: Object) -> list[Object]:
    return [*pod.get("containers", ()), *pod.get("initContainers", ())]
