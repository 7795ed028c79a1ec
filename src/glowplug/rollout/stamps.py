"""Which version of the predictor answered, told by its payload events. Pure.

The gate `loss` needs it: labels come late, and what was answered meanwhile has to be counted for the right side. In a
cluster nothing in KServe's events tells one revision's pods from another's: Knative's queue-proxy takes Knative's own
headers off before KServe's agent sees the request, and `source` is the same for all. An annotation of the pods does
reach them, where the logger's `metadataAnnotations` names it. So the write that makes a new version of a service that
asks for the gate stamps an id into the predictor's annotations, and adds it to that list. Whoever judges finds it on
the Revision.

The annotation is part of the revision's template: a write that makes no new version must leave it as it was, or it
would make a revision of its own. Source: KServe's pkg/webhook/admission/pod/agent_injector.go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from glowplug.errors import ConfigError
from glowplug.spec import names

from .gates import LOSS, metrics_of, parse_gates
from .observation import annotations_of, version_of

Object = dict[str, Any]
_DIGITS = 12
_LISTED = "metadataAnnotations"


def stamp(isvc: Object, old: Object | None) -> None:
    """Gives the predictor of `isvc`, which is written in place of `old`, the id of its version, or takes it away."""
    predictor = isvc["spec"].get("predictor")
    is_asked, was_asked = _asks(isvc), old is not None and _asks(old)
    if not isinstance(predictor, dict) or not (is_asked or was_asked):
        return
    before = ((old or {}).get("spec") or {}).get("predictor") or {}
    known = (before.get("annotations") or {}).get(names.VERSION)
    is_new = old is None or version_of(before) != version_of(predictor)
    if is_asked and (is_new or (known is None and not was_asked)):
        _set(predictor, _next(known, predictor))
    elif known is not None and not is_new:
        _set(predictor, known)
    else:
        _remove(predictor, before)


def _asks(isvc: Mapping[str, Any]) -> bool:
    """Whether losses are to be compared, and there is a logger to tell of them."""
    annotations = annotations_of(isvc)
    predictor = (isvc.get("spec") or {}).get("predictor") or {}
    if names.ROLLOUT_STEPS not in annotations or not isinstance(predictor.get("logger"), dict):
        return False
    try:
        return LOSS in metrics_of(parse_gates(annotations.get(names.ROLLOUT_GATES, "")))
    except ConfigError:
        return False


def _next(known: str | None, predictor: Object) -> str:
    """Another id than that of any version before, the same however often it is asked: who goes back to what ran two
    versions ago has a canary of the stable revision's content, and their losses still have to be told apart."""
    text = json.dumps([known, version_of(predictor)], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def _set(predictor: Object, version: str) -> None:
    predictor["annotations"] = {**(predictor.get("annotations") or {}), names.VERSION: version}
    logger = predictor.get("logger")
    if isinstance(logger, dict) and names.VERSION not in (logger.get(_LISTED) or ()):
        logger[_LISTED] = [*(logger.get(_LISTED) or ()), names.VERSION]


def _remove(predictor: Object, before: Object) -> None:
    if names.VERSION in (predictor.get("annotations") or {}):
        del predictor["annotations"][names.VERSION]
        if not predictor["annotations"]:
            del predictor["annotations"]
    logger = predictor.get("logger")
    if not isinstance(logger, dict) or names.VERSION not in (logger.get(_LISTED) or ()):
        return
    if names.VERSION not in ((before.get("logger") or {}).get(_LISTED) or ()):
        logger[_LISTED] = [key for key in logger[_LISTED] if key != names.VERSION]
        if not logger[_LISTED]:
            del logger[_LISTED]
