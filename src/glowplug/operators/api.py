"""The Kubernetes API as the controller needs it: a few verbs on JSON, asynchronous, with a timeout each.

Who we are (tokens, certificates, exec plugins) is lightkube's to know; `kopf_login` hands the same to kopf, which
would otherwise follow its own rules and never another context than the current one.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx2
import lightkube
from lightkube.config.client_adapter import AsyncClient, ConnectionParams, user_auth
from lightkube.config.kubeconfig import KubeConfig, SingleConfig

from glowplug.errors import AlreadyExists, ApiError, ConfigError, Conflict, Forbidden, NotFound, Unauthorized

if TYPE_CHECKING:
    import kopf

Object = dict[str, Any]
_ERRORS: dict[str, type[ApiError]] = {
    error.reason: error for error in (AlreadyExists, Conflict, Forbidden, NotFound, Unauthorized)
}


def connection(kubeconfig: pathlib.Path | None, context: str | None) -> SingleConfig:
    """Where the API is and who we are: of a kubeconfig's context, or with None of the pod that we run in.

    Raises ConfigError.
    """
    try:
        if kubeconfig is None:
            found = KubeConfig.from_service_account().get()
        else:
            found = KubeConfig.from_file(kubeconfig).get(context_name=context)
    except (lightkube.core.exceptions.ConfigError, KeyError) as error:
        raise ConfigError(f"{kubeconfig or 'the service account'}: {error}") from error
    assert found is not None, "without a default `get` raises"
    return found


class Api:
    """Requests against one API; failures are ApiError, or OSError where nobody answers."""

    def __init__(self, config: SingleConfig, timeout_s: float) -> None:
        parameters = ConnectionParams(timeout=httpx2.Timeout(timeout_s), trust_env=False)
        self._http = AsyncClient(config, parameters)

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str, **params: str) -> Object:
        """The object, or list, at `path`."""
        answer: Object = (await self._request("GET", path, params=params)).json()
        return answer

    async def text(self, path: str) -> str:
        """What is at `path`, as text."""
        return (await self._request("GET", path)).text

    async def create(self, path: str, body: Object) -> Object:
        """POST to a collection."""
        answer: Object = (await self._request("POST", path, json=body)).json()
        return answer

    async def replace(self, path: str, body: Object) -> Object:
        """PUT; with a resourceVersion in `body` only if nobody wrote in between."""
        answer: Object = (await self._request("PUT", path, json=body)).json()
        return answer

    async def merge(self, path: str, patch: Mapping[str, Any]) -> Object:
        """A JSON merge patch."""
        headers = {"Content-Type": "application/merge-patch+json"}
        answer: Object = (await self._request("PATCH", path, json=patch, headers=headers)).json()
        return answer

    async def delete(self, path: str) -> None:
        """DELETE; what is not there is gone."""
        try:
            await self._request("DELETE", path)
        except NotFound:
            return

    async def _request(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        try:
            response = await self._http.request(method, path, **arguments)
        except httpx2.TransportError as error:
            raise OSError(f"{method} {path}: {error or type(error).__name__}") from error
        if response.status_code < 400:
            return response
        try:
            status = response.json()
        except ValueError:
            status = {"message": response.text.strip()[:200] or f"HTTP {response.status_code}"}
        kind = _ERRORS.get(str(status.get("reason", "")), ApiError)
        raise kind(f"{method} {path}: {status.get('message', '')}")


def kopf_login(config: SingleConfig) -> kopf.ConnectionInfo:
    """The same connection for kopf."""
    import kopf  # not needed, and not paid for, by who only asks the API

    user, cluster = config.user, config.cluster
    scheme, token = _authorization(config)

    def path(name: str | None) -> str | None:
        return None if name is None else str(config.abs_file(name))

    return kopf.ConnectionInfo(
        server=cluster.server,
        ca_path=path(cluster.certificate_auth),
        ca_data=cluster.certificate_auth_data,
        insecure=cluster.insecure,
        scheme=scheme,
        token=token,
        certificate_path=path(user.client_cert) if user else None,
        certificate_data=user.client_cert_data if user else None,
        private_key_path=path(user.client_key) if user else None,
        private_key_data=user.client_key_data if user else None,
        default_namespace=config.namespace,
    )


def _authorization(config: SingleConfig) -> tuple[str | None, str | None]:
    """The header that lightkube would send, as scheme and token, whatever it comes from."""
    auth = user_auth(config.user)
    if auth is None:
        return None, None
    # Blocks while an exec plugin runs: kopf logs in before it does anything else.
    request = next(auth.sync_auth_flow(httpx2.Request("GET", config.cluster.server)))
    scheme, _, token = request.headers["Authorization"].partition(" ")
    return scheme, token
