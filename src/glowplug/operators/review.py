"""Answers an AdmissionReview with what a controller decided. Pure, but for the call of `Admit`."""

from __future__ import annotations

import base64
import copy
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import kopf

from .api import Object

_log = logging.getLogger(__name__)


class Admit(Protocol):
    """Decides what is written in place of `new`: the changed object, or None to leave it as it is.

    `old` is None on CREATE; `operation` is CREATE or UPDATE; both objects are the callee's to change. It must do
    nothing but answer, because the write may still fail or be a dry run, must give the same for what it gave
    before, and has the webhook's timeout. `warn` takes what the client is to be shown. Raising
    kopf.AdmissionError(message, code) denies the write; whatever else it raises is logged, the client is warned, and
    the write goes on unchanged.
    """

    async def __call__(
        self,
        old: Object | None,
        new: Object,
        *,
        operation: str,
        dry_run: bool,
        userinfo: Object,
        warn: Callable[[str], None],
    ) -> Object | None: ...


async def answer(name: str, review: Object, admit: Admit) -> Object:
    """The AdmissionReview with the response; `name` tells the client whose it is. Raises KeyError for no review."""
    request = review["request"]
    response: Object = {"uid": request["uid"], "allowed": True}
    new = request["object"]
    warnings: list[str] = []
    try:
        changed = await admit(
            copy.deepcopy(request.get("oldObject")),
            copy.deepcopy(new),
            operation=request["operation"],
            dry_run=bool(request.get("dryRun")),
            userinfo=request.get("userInfo") or {},
            warn=warnings.append,
        )
    except kopf.AdmissionError as error:
        response.update(allowed=False, status={"message": str(error), "code": error.code or 500})
    except Exception as error:
        # Our own mistake must not keep anybody from changing their services.
        _log.exception("an InferenceService is written as it came")
        response["warnings"] = [f"{name}: {type(error).__name__}, so this is written as it came: {error}"]
    else:
        operations = list(difference(new, changed)) if changed is not None else []
        if operations:
            patch = base64.b64encode(json.dumps(operations).encode()).decode()
            response.update(patchType="JSONPatch", patch=patch)
        if warnings:
            response["warnings"] = warnings
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def difference(old: Any, new: Any, path: str = "") -> Iterator[Object]:
    """The JSON patch from `old` to `new`; a list that differs is replaced."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        # As JSON: to Python, 1 and true are the same.
        if json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
            yield {"op": "replace", "path": path, "value": new}
        return
    for key in old.keys() | new.keys():
        here = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
        if key not in new:
            yield {"op": "remove", "path": here}
        elif key not in old:
            yield {"op": "add", "path": here, "value": new[key]}
        else:
            yield from difference(old[key], new[key], here)
