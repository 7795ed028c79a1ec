"""Who may ask: one bearer token, one user, and the reviews with which clients ask what they may do.

There is no RBAC on one person's machine: the token may do everything that the machine can do.
"""

from __future__ import annotations

import hmac

from glowplug.apiserver.codec import Object
from glowplug.apiserver.discovery import verbs
from glowplug.errors import BadRequest, Unauthorized
from glowplug.spec.kinds import KINDS, Kind

USER = "glowplug-admin"
GROUPS = ("system:masters", "system:authenticated")
# Answered to anybody who can reach the port, as a cluster does.
OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})


def authenticate(authorization: str, token: str) -> None:
    """Raises Unauthorized unless the header carries the machine's token."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return
    raise Unauthorized(
        "Unauthorized", hint="" if authorization else "no bearer token: use the machine's kubeconfig"
    )


def review(plural: str, body: Object) -> Object:
    """The answered SelfSubject*Review. Raises BadRequest for parts of it that are no objects."""
    if plural == "selfsubjectaccessreviews":
        body["status"] = access(_part(_part(body, "spec"), "resourceAttributes"))
    elif plural == "selfsubjectrulesreviews":
        body["status"] = rules()
    else:
        body["status"] = {"userInfo": {"username": USER, "groups": list(GROUPS)}}
    body.setdefault("metadata", {})
    return body


def access(attributes: Object) -> Object:
    """Whether the token may do this: all that the API serves; a read-only kind says why not."""
    kind = _kind(attributes)
    verb = attributes.get("verb", "")
    if kind is not None and kind.is_read_only and verb not in verbs(kind):
        return {"allowed": False, "reason": f"{kind.resource} are read-only here"}
    return {"allowed": True, "reason": "the machine's own token may do everything"}


def rules() -> Object:
    """Everything, and then per kind what is served, which is what a reader of `--list` wants to know."""
    served = [{"verbs": verbs(kind), "apiGroups": [kind.group], "resources": [kind.plural]} for kind in KINDS]
    return {
        "resourceRules": served,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}],
        "incomplete": False,
    }


def _part(obj: Object, key: str) -> Object:
    value = obj.get(key) or {}
    if not isinstance(value, dict):
        raise BadRequest(f"{key} is {value!r}, must be an object")
    return value


def _kind(attributes: Object) -> Kind | None:
    wanted = (attributes.get("group", ""), attributes.get("resource", ""))
    return next((kind for kind in KINDS if (kind.group, kind.plural) == wanted), None)
