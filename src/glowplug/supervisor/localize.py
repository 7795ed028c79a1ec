"""A container of a pod → the command that runs it on this computer. Pure.

The rules, in the order in which they are applied to the container's text: names of services, port numbers and mounted
paths are made real (`rewrite`), then `$(VAR)` is expanded as Kubernetes does (`expansion`), then port numbers once
more for those that a variable brought in.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowplug.spec import names
from glowplug.supervisor import environment
from glowplug.supervisor.config import SupervisorConfig
from glowplug.supervisor.expansion import expand
from glowplug.supervisor.failures import CONFIG_ERROR, CREATE_ERROR, IMAGE_PULL_ERROR, CannotStart
from glowplug.supervisor.images import ImageTable, Unit
from glowplug.supervisor.ports import PodPorts, PortPlan, own_ports, plan, rewrite_port_words
from glowplug.supervisor.probes import Probes, parse_probes
from glowplug.supervisor.rewrite import Resolve, Rewriter
from glowplug.supervisor.sources import Lookup, Sources

_PYTHON = ("python", "python3")
# Names which every process of a pod carries, so that one that left its process group can still be found.
MACHINE_MARK = "GLOWPLUG_MACHINE"
POD_MARK = "GLOWPLUG_POD_UID"


@dataclass(frozen=True)
class Command:
    """How to run one container: nothing in it refers to the pod's own network or file system any more.

    `image` is that of the unit whose own `run` this is, None for any other command. `env` may hold secrets, so it is
    not part of the repr.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    probes: Probes
    env: Mapping[str, str]
    image: str | None = None

    def __repr__(self) -> str:
        return f"Command(name={self.name!r}, argv={self.argv!r}, cwd={self.cwd!r})"


@dataclass(frozen=True)
class Endpoint:
    """Where the pod's serving container listens; `grpc` is None if it has no gRPC port of its own."""

    http: int
    grpc: int | None


@dataclass(frozen=True)
class PodPlace:
    """What this computer gives to one pod: ports, a folder, real directories of its volumes and of its model.

    `volumes` maps a volume's name to its directory; `model_dir` is None for a pod without a model to download.
    """

    ports: PodPorts
    folder: Path
    volumes: Mapping[str, Path]
    model_dir: Path | None


@dataclass(frozen=True)
class Surroundings:
    """What all pods of the machine share. `mark` is the machine's value of MACHINE_MARK.

    `copying` is what units whose server copies requests by itself are told of it; empty: nothing.
    """

    config: SupervisorConfig
    images: ImageTable
    lookup: Lookup
    resolve: Resolve
    mark: str
    copying: Callable[[], str] = lambda: ""


def port_plan(pod: Mapping[str, Any], images: ImageTable) -> PortPlan:
    """`ports.plan`, knowing which containers are units."""
    containers = pod["spec"]["containers"]
    return plan(pod, [each["name"] for each in containers if images.find(each.get("image") or "")])


def endpoint(pod: Mapping[str, Any], ports: PodPorts, images: ImageTable) -> Endpoint:
    """The ports for the router. A spare gRPC port counts only where our own server is known to listen on it."""
    if ports.plan.is_h2c:
        return Endpoint(ports.http, None)
    serving = next(each for each in pod["spec"]["containers"] if each["name"] == ports.plan.serving)
    has_grpc = ports.plan.grpc is not None or images.find(serving.get("image") or "") is not None
    return Endpoint(ports.http, ports.grpc if has_grpc else None)


def localize(
    pod: Mapping[str, Any], container: Mapping[str, Any], place: PodPlace, around: Surroundings
) -> Command:
    """The command for `container`. Raises CannotStart with Kubernetes' reason and wording."""
    unit = around.images.find(container.get("image") or "")
    words = _words(container, unit, around, has_model=place.model_dir is not None)
    rewriter = Rewriter(place.ports.real, mounts(container, place), around.resolve)
    env, variables = _environment(pod, container, unit, place, around, rewriter)
    argv = tuple(_real(word, rewriter, variables) for word in rewrite_port_words(words, place.ports.real))
    if argv[0] in _PYTHON:
        # Last, as it is a path of this computer: a volume that is mounted at the same place is not meant by it.
        argv = (around.config.python, *argv[1:])
    working_dir = container.get("workingDir")
    cwd = _real(working_dir, rewriter, variables) if working_dir else str(place.folder)
    http_port = _http_port(container, unit is not None, place.ports)
    has_default = names.REVISION_LABEL in (pod["metadata"].get("labels") or {}) or bool(
        container.get("ports")
    )
    probes = parse_probes(
        container, http_port, unit.readiness if unit else None, rewriter, has_default=has_default
    )
    is_own_run = unit is not None and not container.get("command")
    return Command(container["name"], argv, cwd, probes, env, unit.image if unit and is_own_run else None)


def mounts(container: Mapping[str, Any], place: PodPlace) -> dict[str, str]:
    """Mount path → real path, for one container. Raises CannotStart for a mount of a volume that is not there."""
    result: dict[str, str] = {}
    if place.model_dir is not None and container["name"] in (
        names.SERVING_CONTAINER,
        names.TRANSFORMER_CONTAINER,
    ):
        result[names.MODEL_MOUNT_PATH] = str(place.model_dir)
    for mount in container.get("volumeMounts") or ():
        real = place.volumes.get(mount["name"])
        if real is None:
            raise CannotStart(
                CREATE_ERROR, f'no volume "{mount["name"]}" in the pod, mounted at {mount["mountPath"]}'
            )
        if mount["mountPath"].rstrip("/") == "":
            raise CannotStart(
                CREATE_ERROR, f'volume "{mount["name"]}" can\'t be mounted at / on this computer'
            )
        below = posixpath.normpath("/" + (mount.get("subPath") or "")).lstrip("/")
        result[mount["mountPath"]] = str(real / below) if below else str(real)
    return result


def _words(
    container: Mapping[str, Any], unit: Unit | None, around: Surroundings, has_model: bool
) -> list[str]:
    command = list(container.get("command") or ())
    if not command:
        if unit is None:
            raise CannotStart(IMAGE_PULL_ERROR, around.images.unknown(container.get("image") or ""))
        command = shlex.split(unit.run)
        if has_model and container["name"] == names.SERVING_CONTAINER and not _has_model_dir(container):
            # A unit's default, which is in its code, where nothing can be rewritten.
            command.append(f"--model_dir={names.MODEL_MOUNT_PATH}")
    return [*command, *(container.get("args") or ())]


def _environment(
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    unit: Unit | None,
    place: PodPlace,
    around: Surroundings,
    rewriter: Rewriter,
) -> tuple[dict[str, str], dict[str, str]]:
    """The whole environment, and the part of it that `$(VAR)` in commands may refer to."""
    account = environment.service_account(pod, around.config.kubeconfig)
    given = {"HOST": "127.0.0.1", **environment.knative(pod), **account}
    contract = _port_variables(container, unit is not None, place.ports)
    sources = Sources(around.lookup, pod["metadata"]["namespace"])
    own = environment.declared(pod, container, sources, rewriter, {**given, **contract})
    if sources.missing:
        raise CannotStart(CONFIG_ERROR, ", ".join(dict.fromkeys(sources.missing)))
    variables = {**given, **own, **contract}
    base = {
        **environment.inherited(around.config.host_env),
        **(
            environment.python(str(unit.src), str(around.config.machine_path))
            if unit
            else environment.python()
        ),
        **environment.threads(container),
    }
    marks = {MACHINE_MARK: around.mark, POD_MARK: pod["metadata"]["uid"]}
    if unit is not None and unit.copies and not container.get("command") and (copying := around.copying()):
        marks[names.COPIES_ENV] = copying
    return {**base, **variables, **marks}, variables


def _real(text: str, rewriter: Rewriter, variables: Mapping[str, str]) -> str:
    return rewriter.ports(expand(rewriter.text(text), variables))


def _has_model_dir(container: Mapping[str, Any]) -> bool:
    return any(word.partition("=")[0] == "--model_dir" for word in container.get("args") or ())


def _port_variables(container: Mapping[str, Any], is_unit: bool, ports: PodPorts) -> dict[str, str]:
    """PORT and GRPC_PORT: Knative's contract for the serving container, and how a unit beside it learns its own."""
    if container["name"] == ports.plan.serving:
        return {"PORT": str(ports.http), "GRPC_PORT": str(ports.grpc)}
    if not is_unit:
        return {}
    own = own_ports(container, is_default=True)
    return {"PORT": str(ports.real[own["http"]]), "GRPC_PORT": str(ports.real[own["grpc"]])}


def _http_port(container: Mapping[str, Any], is_unit: bool, ports: PodPorts) -> int | None:
    """Where this container takes HTTP as far as the pod tells, or None; the real port."""
    if container["name"] == ports.plan.serving:
        return ports.http
    named = own_ports(container, is_unit).get("http")
    if named is None:
        declared = container.get("ports") or ()
        named = int(declared[0]["containerPort"]) if declared else None
    return None if named is None else ports.real[named]
