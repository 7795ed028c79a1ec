"""`logs`: the output of a model's pods, or of one pod."""

from __future__ import annotations

import sys
import threading

from glowplug.cli import output
from glowplug.cli.kube import Cluster
from glowplug.cli.predict import is_stopped, start_hint, why_unready
from glowplug.errors import BadRequest, GlowplugError, NotFound
from glowplug.spec import names
from glowplug.spec.kinds import INFERENCE_SERVICE


def pods_of(cluster: Cluster, name: str) -> list[tuple[str, list[str]]]:
    """The pods that `name` means, each with its containers: a pod's own name, or an InferenceService's."""
    pods = f"/api/v1/namespaces/{cluster.namespace}/pods"
    found = cluster.get(pods, labelSelector=f"{names.INFERENCE_SERVICE_LABEL}={name}")["items"]
    if not found:
        try:
            found = [cluster.get(f"{pods}/{name.removeprefix('pod/')}")]
        except NotFound as error:
            _explain_no_pods(cluster, name)
            raise NotFound(
                f'no pod, and no pod of an InferenceService, is named "{name}" in namespace {cluster.namespace}',
                hint=f"`glowplug get {INFERENCE_SERVICE.short_names[0]}` and `glowplug get pods` list what is there",
            ) from error
    return [
        (pod["metadata"]["name"], [container["name"] for container in pod["spec"]["containers"]])
        for pod in found
    ]


def _explain_no_pods(cluster: Cluster, name: str) -> None:
    """Raises GlowplugError saying why the InferenceService has no pods; returns where there is no such one."""
    root = f"/apis/{INFERENCE_SERVICE.api_version}/namespaces/{cluster.namespace}/{INFERENCE_SERVICE.plural}"
    try:
        service = cluster.get(f"{root}/{name}")
    except NotFound:
        return
    head = f'InferenceService "{name}" has no pods'
    if is_stopped(service):
        raise GlowplugError(f"{head}: it is stopped", hint=start_hint(name))
    conditions = (service.get("status") or {}).get("conditions", ())
    if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
        raise GlowplugError(
            f"{head}: it is scaled to zero", hint=f"a request starts one: `glowplug predict {name} -d FILE`"
        )
    raise GlowplugError(f"{head}: {why_unready(service)}", hint=f"`kubectl describe isvc {name}` shows more")


def print_logs(cluster: Cluster, name: str, *, container: str | None, follow: bool, tail: int | None) -> None:
    """Write the lines of every container that `name` means to stdout, led by pod and container where they are many."""
    sources = [
        (pod, found)
        for pod, containers in pods_of(cluster, name)
        for found in containers
        if container in (None, found)
    ]
    if not sources:
        raise NotFound(
            f'no container of "{name}" is named "{container}"', hint="leave -c away to see all of them"
        )
    params = {"follow": "true"} if follow else {}
    if tail is not None:
        params["tailLines"] = str(tail)
    threads = [
        threading.Thread(
            target=_copy,
            args=(cluster, pod, found, params, f"[{pod}/{found}] " if len(sources) > 1 else ""),
            daemon=True,
        )
        for pod, found in sources
    ]
    if not follow:
        for thread in threads:
            thread.run()
        return
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _copy(cluster: Cluster, pod: str, container: str, params: dict[str, str], lead: str) -> None:
    """The container's output; that of its last run where this one has said nothing yet."""
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/log"
    is_silent, has_said = True, False
    try:
        with cluster.stream(path, {**params, "container": container}) as response:
            for line in response.iter_lines():
                is_silent = False
                _write(lead, line)
        if is_silent:
            with cluster.stream(path, {**params, "container": container, "previous": "true"}) as response:
                for line in response.iter_lines():
                    has_said = True
                    _write(lead, line)
    except BadRequest as error:
        # Nothing ran yet, or nothing ran before: the API says what the container waits for.
        if is_silent and "previous terminated container" not in error.message:
            output.warned(f"{lead}{error.message}; `kubectl describe pod {pod}` says why")
            return
    if is_silent and not has_said:
        _tell_waiting(cluster, pod, container, lead)


def _tell_waiting(cluster: Cluster, pod: str, container: str, lead: str) -> None:
    """What a container without any output waits for, if it waits."""
    status = cluster.get(f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}").get("status") or {}
    for each in status.get("containerStatuses", ()):
        waiting = each.get("state", {}).get("waiting")
        if each["name"] == container and waiting:
            said = f": {waiting['message']}" if waiting.get("message") else ""
            output.warned(f"{lead}container {container} waits: {waiting.get('reason', '')}{said}")


def _write(lead: str, line: str) -> None:
    sys.stdout.write(f"{lead}{line}\n")
    sys.stdout.flush()
