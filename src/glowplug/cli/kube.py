"""The Kubernetes API as the command line needs it: any context of any kubeconfig, ours or a cluster's.

Reading kubeconfigs (tokens, certificates, exec plugins) is lightkube's; the official client takes a second to
import, which a command that is typed all day cannot afford. This is the only place that imports either.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import lightkube
from lightkube.config.client_adapter import Client as http_client
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import KubeConfig

from glowplug.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    ConfigError,
    Conflict,
    Forbidden,
    GlowplugError,
    Gone,
    Invalid,
    NotFound,
    Problem,
    Unauthorized,
)

Object = dict[str, Any]

_REASONS: dict[str, type[ApiError]] = {
    error.reason: error
    for error in (BadRequest, Unauthorized, Forbidden, NotFound, AlreadyExists, Conflict, Gone, Invalid)
}


@dataclass(frozen=True)
class Resource:
    """A kind as the API's own discovery names it."""

    api_version: str
    kind: str
    plural: str
    is_namespaced: bool
    # As one types it.
    typed: str = ""

    def path(self, namespace: str | None, name: str = "") -> str:
        """The URL path of the collection in `namespace` (None: all), or of one object."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        scope = f"/namespaces/{namespace}" if self.is_namespaced and namespace else ""
        return f"{root}{scope}/{self.plural}" + (f"/{name}" if name else "")

    @property
    def shown(self) -> str:
        """`inferenceservice.serving.kserve.io`, as kubectl names it in its output."""
        group = self.api_version.partition("/")[0] if "/" in self.api_version else ""
        return f"{self.kind.lower()}.{group}" if group else self.kind.lower()


class Cluster:
    """One context: requests against its API, errors as `errors.ApiError`."""

    def __init__(self, http: httpx2.Client, namespace: str, kubeconfig: str) -> None:
        self._http = http
        self.namespace = namespace
        self.kubeconfig = kubeconfig
        self._discovered: dict[str, list[Object]] = {}

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """One request; a Status that tells of a failure is raised as the error of its reason."""
        try:
            response = self._http.request(method, path, content=body, params=params, headers=headers)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        _raise_for(response)
        return response

    def close(self) -> None:
        """Lets the connections go."""
        self._http.close()

    @contextmanager
    def stream(self, path: str, params: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """A response that is read as it comes (logs, watches), without a time limit on its end."""
        timeout = httpx2.Timeout(10, read=None)
        try:
            with self._http.stream("GET", path, params=params, timeout=timeout) as response:
                if response.status_code >= 400:
                    response.read()
                _raise_for(response)
                yield response
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def get(self, path: str, **params: str) -> Object:
        """The object (or list) at `path`."""
        answer: Object = self.request("GET", path, params=params).json()
        return answer

    def resource_of(self, api_version: str, kind: str) -> Resource:
        """Where objects of `apiVersion` and `kind` live; NotFound where the API has no such kind."""
        for found in self._resources(api_version):
            if found["kind"] == kind and "/" not in found["name"]:
                return Resource(api_version, kind, found["name"], found["namespaced"])
        raise NotFound(
            f'no matches for kind "{kind}" in version "{api_version}"',
            hint="`kubectl api-resources` lists the kinds that this API serves",
        )

    def resource_named(self, name: str) -> Resource:
        """The kind that a user means by `isvc`, `inferenceservice`, `pods`, `services.serving.knative.dev`."""
        wanted, _, group = name.lower().partition(".")
        for api_version in self._api_versions():
            if group and api_version.partition("/")[0] != group:
                continue
            for found in self._resources(api_version):
                names = {found["name"], found.get("singularName", ""), *found.get("shortNames", ())}
                if wanted in {*names, found["kind"].lower()} and "/" not in found["name"]:
                    typed = next(iter(found.get("shortNames", ())), found["name"])
                    return Resource(api_version, found["kind"], found["name"], found["namespaced"], typed)
        raise NotFound(
            f'the API has no resource "{name}"', hint="`kubectl api-resources` lists the names that it takes"
        )

    def _api_versions(self) -> Iterator[str]:
        yield "v1"
        for group in self.get("/apis")["groups"]:
            yield group["preferredVersion"]["groupVersion"]

    def _resources(self, api_version: str) -> list[Object]:
        if api_version not in self._discovered:
            root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            try:
                self._discovered[api_version] = self.get(root)["resources"]
            except NotFound:
                self._discovered[api_version] = []
        return self._discovered[api_version]

    def _unreachable(self, error: Exception) -> GlowplugError:
        return ConfigError(
            f"the Kubernetes API at {self._http.base_url} ({self.kubeconfig}) cannot be reached: {error}",
            hint="is the local machine up? start it with `glowplug up`; for a cluster check the context",
        )


def connect(kubeconfig: pathlib.Path | None, context: str | None, namespace: str | None) -> Cluster:
    """A cluster by flag, else by `KUBECONFIG`, else the machine of this folder, else `~/.kube/config`."""
    path = kubeconfig or _found_kubeconfig()
    try:
        config = KubeConfig.from_file(path).get(context_name=context)
    except lightkube.core.exceptions.ConfigError as error:
        raise ConfigError(
            f"{path}: {error}",
            hint="name another file with --kubeconfig, or start a machine with `glowplug up`",
        ) from error
    if config is None:
        raise ConfigError(f"{path} has no current context", hint="name one with --context")
    return Cluster(
        http_client(config, ConnectionParams(trust_env=False)), namespace or config.namespace, str(path)
    )


def _found_kubeconfig() -> pathlib.Path:
    if named := os.environ.get("KUBECONFIG"):
        return pathlib.Path(named.split(os.pathsep)[0])
    local = pathlib.Path(".glowplug/kubeconfig")
    if local.exists():
        return local
    home = pathlib.Path.home() / ".kube/config"
    if home.exists():
        return home
    raise ConfigError(
        "no kubeconfig: neither --kubeconfig, nor KUBECONFIG, nor ./.glowplug/kubeconfig, nor ~/.kube/config",
        hint="start the local machine with `glowplug up`",
    )


@contextmanager
def hinted(resource: str) -> Iterator[None]:
    """Add to a NotFound of the block which command lists the objects that there are."""
    try:
        yield
    except NotFound as error:
        hint = error.hint or f"`glowplug get {resource} -A` lists them"
        raise NotFound(error.message, hint=hint, causes=error.causes) from error


def _raise_for(response: httpx2.Response) -> None:
    if response.status_code < 400:
        return
    try:
        status: Object = response.json()
    except ValueError:
        status = {"message": response.text.strip() or f"HTTP {response.status_code}"}
    causes = [
        Problem(cause.get("field", ""), cause.get("message", ""), cause.get("reason", ""))
        for cause in (status.get("details") or {}).get("causes", ())
    ]
    # Of a group that it does not serve, a cluster says so in plain text.
    other = NotFound if response.status_code == 404 else ApiError
    raise _REASONS.get(status.get("reason", ""), other)(status.get("message", ""), causes=causes)
