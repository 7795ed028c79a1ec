"""Which port numbers a pod names, and which container takes its requests.

Containers of a real pod share a network of their own, so a number means the same in all of them. Here every number
that the pod names is mapped to a free loopback port, once for the whole pod.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glowplug.spec import names

DEFAULT_PORT = 8080
_KSERVE_DEFAULTS = {"http": 8080, "grpc": 8081}
_FLAG = re.compile(r"(?<![\w-])--(http|grpc)_port(?:[= ]+(\d{1,5})(?!\d))?")


@dataclass(frozen=True)
class PortPlan:
    """The numbers that a pod names. `grpc` is None unless the serving container has `--grpc_port`.

    `is_h2c`: the serving port itself speaks HTTP/2, gRPC included.
    """

    serving: str
    http: int
    grpc: int | None
    is_h2c: bool
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class PodPorts:
    """`real` maps each named number to a loopback port; `spare_grpc` is for a serving container that names none."""

    plan: PortPlan
    real: Mapping[int, int]
    spare_grpc: int

    @property
    def http(self) -> int:
        """Where the serving container takes HTTP."""
        return self.real[self.plan.http]

    @property
    def grpc(self) -> int:
        """What the serving container gets as GRPC_PORT."""
        return self.spare_grpc if self.plan.grpc is None else self.real[self.plan.grpc]


def serving_container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container with `ports`, else the only one, else `kserve-container`, else the first."""
    containers: Sequence[Mapping[str, Any]] = pod["spec"]["containers"]
    for container in containers:
        if container.get("ports"):
            return container
    for container in containers:
        if container.get("name") == names.SERVING_CONTAINER:
            return container
    return containers[0]


def plan(pod: Mapping[str, Any], units: Collection[str] = ()) -> PortPlan:
    """The numbers that have to be real before any container of `pod` can start.

    `units` are the names of those containers whose image is a unit, see `own_ports`.
    """
    serving = serving_container(pod)
    declared = serving.get("ports") or [{}]
    http = int(declared[0].get("containerPort", DEFAULT_PORT))
    is_h2c = declared[0].get("name") == "h2c"
    numbers = {http: None}
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            numbers[int(port["containerPort"])] = None
        is_default = container is not serving and container["name"] in units
        for number in own_ports(container, is_default).values():
            numbers[number] = None
    grpc = None if is_h2c else flag_ports(serving).get("grpc")
    return PortPlan(serving["name"], http, grpc, is_h2c, tuple(numbers))


def own_ports(container: Mapping[str, Any], is_default: bool) -> dict[str, int]:
    """`flag_ports`, with KServe's defaults for what is not said if `is_default`.

    That is so for a unit beside the serving container: it listens on 8080 and 8081 unless told otherwise, and its
    neighbours call it there.
    """
    return {**(_KSERVE_DEFAULTS if is_default else {}), **flag_ports(container)}


def flag_ports(container: Mapping[str, Any]) -> dict[str, int]:
    """The values of `--http_port` and `--grpc_port` in a container's command line, by `http` and `grpc`."""
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    found: dict[str, int] = {}
    for index, word in enumerate(words):
        for kind, number in _FLAG.findall(word):
            following = words[index + 1] if index + 1 < len(words) else ""
            value = number or (following if _is_bare_flag(word) and following.isdecimal() else "")
            if value and 0 < int(value) < 65536:
                found[kind] = int(value)
    return found


def _is_bare_flag(word: str) -> bool:
    return word in ("--http_port", "--grpc_port")


def rewrite_port_words(words: Iterable[str], real: Mapping[int, int]) -> list[str]:
    """The two-word form, `--http_port 8080`, with the number made real; other words as they are."""
    result: list[str] = []
    for word in words:
        is_value = bool(result) and _is_bare_flag(result[-1]) and word.isdecimal()
        result.append(str(real.get(int(word), word)) if is_value else word)
    return result


def bind(plan: PortPlan, free: Sequence[int]) -> PodPorts:
    """`plan` with `free` ports handed out: one for each number, and one spare."""
    real = dict(zip(plan.numbers, free, strict=False))
    return PodPorts(plan, real, free[len(plan.numbers)])
