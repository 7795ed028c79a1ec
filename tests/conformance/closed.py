"""Namespaces that the bundle's NetworkPolicies close, and pods in them that say what they reach.

The policies are those that the overlay `staging` brings, but for the names of the namespaces: those of the bundle may
be in use on this cluster. What a pod reaches is asked in the pod itself, by a TCP connection.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from conformance.controller import image
from conformance.target import Object, Target
from contract.manifests_lab import overlay
from local.machine_lab import wait_for

SPACES = ("serving", "backing", "glowplug", "monitoring")
# Where the policies say nothing.
ELSEWHERE = "elsewhere"
LISTENER = pathlib.Path(__file__).parent / "pods" / "listener.py"
FILES = "/files"
SETTLED_S = 60.0
# Whether plugins refuse or drop, it is over by then.
ASK = """
import json, socket, sys
def ask(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
    except OSError as error:
        return str(error) or "refused"
print(json.dumps({address: ask(address) for address in sys.argv[1:]}))
"""
Reached = dict[str, bool]


@dataclass(frozen=True)
class Spaces:
    """One namespace for each that the policies know, beside the target's own."""

    target: Target

    def name(self, space: str) -> str:
        return f"{self.target.namespace}-{space}"

    def within(self, space: str) -> Target:
        return dataclasses.replace(self.target, namespace=self.name(space))

    @functools.cached_property
    def names(self) -> list[str]:
        return [self.name(space) for space in (*SPACES, ELSEWHERE)]

    def policies(self, *spaces: str) -> list[Object]:
        """As shipped, of these namespaces."""
        shipped = [each for each in overlay("staging") if each["kind"] == "NetworkPolicy"]
        return [self._renamed(each) for each in shipped if each["metadata"]["namespace"] in spaces]

    def apply(self, objects: Iterable[Object]) -> None:
        for each in objects:
            self.target.kubectl(
                "apply", "-n", each["metadata"]["namespace"], "-f", "-", stdin=json.dumps(each)
            )

    def listener(
        self,
        space: str,
        name: str,
        ports: Sequence[int],
        labels: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """A Pod that takes connections and shows files, and a Service of its name."""
        container = {
            "name": "listener",
            "image": image(self.target),
            "command": ["python3", "-c", LISTENER.read_text()],
            "args": [FILES, *map(str, ports)],
            "readinessProbe": {"tcpSocket": {"port": ports[0]}, "periodSeconds": 1},
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "volumeMounts": [{"name": "files", "mountPath": FILES}],
        }
        metadata = {"name": name, "namespace": self.name(space)}
        content = {each: base64.b64encode(data).decode() for each, data in (files or {}).items()}
        pod = {
            "containers": [container],
            "volumes": [{"name": "files", "configMap": {"name": name}}],
            "terminationGracePeriodSeconds": 1,
            # The image's user is none who may open a port below 1024.
            "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
        }
        service = {
            "selector": {"conformance": name},
            "ports": [{"name": f"p{port}", "port": port} for port in ports],
        }
        of_pod = {**metadata, "labels": {"conformance": name, **(labels or {})}}
        self.apply(
            [
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": content},
                {"apiVersion": "v1", "kind": "Pod", "metadata": of_pod, "spec": pod},
                {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
            ]
        )

    def reaches(self, space: str, pod: str, container: str, addresses: Iterable[str]) -> Reached:
        """`host:port` → whether a connection comes about."""
        asked = self.within(space).kubectl(
            "exec", pod, "-c", container, "--", "python3", "-c", ASK, *addresses
        )
        return {address: why is None for address, why in json.loads(asked.stdout).items()}

    def settle(self, space: str, pod: str, container: str, expected: Reached) -> None:
        """Waits until a pod reaches what is expected and nothing else: policies act a moment after their pods start."""
        seen: Reached = {}

        def is_so() -> bool:
            seen.update(self.reaches(space, pod, container, expected))
            return seen == expected

        try:
            wait_for(is_so, f"what {space}/{pod} reaches", SETTLED_S)
        except AssertionError as error:
            wrong = {
                address: is_reached for address, is_reached in seen.items() if is_reached != expected[address]
            }
            raise AssertionError(f"{error}: {wrong}") from error

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._renamed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._renamed(each) for each in value]
        return self.name(value) if value in SPACES else value


@contextmanager
def spaces(target: Target) -> Iterator[Spaces]:
    """Empty when the block begins, gone after it."""
    found = Spaces(target)
    target.kubectl("delete", "namespace", *found.names, "--ignore-not-found")
    try:
        for name in found.names:
            target.kubectl("create", "namespace", name)
        yield found
    finally:
        target.kubectl("delete", "namespace", *found.names, "--ignore-not-found", "--wait=false")
