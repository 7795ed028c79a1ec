"""The AdmissionReview: what a webhook is sent, and what its answer means.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#webhook-request-and-response
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import orjson

from glowplug.apiserver import auth
from glowplug.apiserver.codec import Object
from glowplug.apiserver.webhook_matching import CREATE, Attributes
from glowplug.errors import ApiError
from glowplug.spec.kinds import NAMESPACE

_API = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}


class Denied(ApiError):
    """A webhook said no; code, reason and details are its own."""

    def __init__(self, hook: str, result: Object) -> None:
        why = result.get("message") or result.get("reason")
        said = f": {why}" if why else " without explanation"
        super().__init__(f'admission webhook "{hook}" denied the request{said}')
        code = result.get("code")
        self.code = code if isinstance(code, int) and 400 <= code < 600 else 400
        self.reason = str(result.get("reason") or "")
        self._details = result.get("details")

    def status(self, details: dict[str, Any] | None = None) -> dict[str, Any]:
        """As Kubernetes answers it: nothing of ours beside what the webhook gave."""
        own = self._details if isinstance(self._details, dict) else {}
        status = super().status(own)
        for key in ("reason", "details"):
            if not status[key]:
                del status[key]
        return status


class WebhookError(ApiError):
    """A webhook failed, which its failurePolicy does not let pass, or asked for what cannot be."""

    def __init__(self, text: str) -> None:
        super().__init__(f"Internal error occurred: {text}")
        self._text = text

    def status(self, details: dict[str, Any] | None = None) -> dict[str, Any]:
        """As Kubernetes answers it: the error as its own cause, and no subject."""
        del details
        return super().status({"causes": [{"message": self._text}]})


@dataclass(frozen=True)
class Verdict:
    """A webhook's answer; `patch` is a JSON patch that nobody has read yet, `result` its Status where it denies."""

    is_allowed: bool
    result: Object
    patch: object
    warnings: tuple[str, ...]


def review(asked: Attributes, uid: str) -> Object:
    """The AdmissionReview for one call."""
    kind = asked.kind
    version = {"group": kind.group, "version": kind.version}
    is_namespace = kind is NAMESPACE and asked.operation != CREATE
    request: Object = {
        "uid": uid,
        "kind": {**version, "kind": kind.name},
        "resource": {**version, "resource": kind.plural},
        "requestKind": {**version, "kind": kind.name},
        "requestResource": {**version, "resource": kind.plural},
        "operation": asked.operation,
        "userInfo": {"username": auth.USER, "groups": list(auth.GROUPS)},
        "object": asked.new,
        "oldObject": asked.old,
        "dryRun": asked.is_dry_run,
        "options": asked.options,
    }
    for key, text in (
        ("name", asked.name),
        ("namespace", asked.name if is_namespace else asked.namespace),
        ("subResource", asked.subresource),
        ("requestSubResource", asked.subresource),
    ):
        if text:
            request[key] = text
    return {**_API, "request": request}


def verdict(body: bytes, uid: str, *, is_mutating: bool) -> Verdict:
    """What an answer to the review `uid` says. Raises ValueError for what is no answer to it."""
    found = _object(_json(body), "the answer")
    for key, expected in _API.items():
        if found.get(key) != expected:
            raise ValueError(f"expected webhook response of {_API}, got {key}={found.get(key)!r}")
    response = _object(found.get("response"), "response")
    if response.get("uid") != uid:
        raise ValueError(f'expected response.uid="{uid}", got "{response.get("uid")}"')
    if not isinstance(response.get("allowed"), bool):
        raise ValueError(f"response.allowed is {response.get('allowed')!r}, must be true or false")
    warnings = response.get("warnings") or []
    return Verdict(
        is_allowed=response["allowed"],
        result=_object(response.get("status") or {}, "response.status"),
        patch=_patch(response, is_mutating=is_mutating),
        warnings=tuple(str(one) for one in warnings if one),
    )


def _patch(response: Object, *, is_mutating: bool) -> object:
    patch, type_ = response.get("patch") or "", response.get("patchType")
    if not is_mutating:
        if patch or type_:
            raise ValueError("a validating webhook may not return response.patch or response.patchType")
        return None
    if bool(patch) != (type_ is not None):
        has, lacks = ("patch", "patchType") if patch else ("patchType", "patch")
        raise ValueError(f"webhook returned response.{has} but not response.{lacks}")
    if not patch:
        return None
    if type_ != "JSONPatch":
        raise ValueError(f"webhook returned invalid response.patchType of {type_!r}, must be JSONPatch")
    try:
        operations = _json(base64.b64decode(patch, validate=True))
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"response.patch is not base64: {error}") from error
    if operations is not None and not isinstance(operations, list):
        raise ValueError("response.patch is no list of operations")
    return operations


def _json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error


def _object(value: object, what: str) -> Object:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {type(value).__name__}, must be an object")
    return value
