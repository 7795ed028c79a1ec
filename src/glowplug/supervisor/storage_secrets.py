"""The credentials of a download, from the Secrets of the pod's ServiceAccount: as KServe's webhook hands them on.

Pure. A Secret counts if it has AWS_SECRET_ACCESS_KEY, the name that KServe's own configuration asks for; the rest is
in its annotations `serving.kserve.io/s3-…`, or under the same names as the environment's in its data.
Source: https://github.com/kserve/kserve pkg/credentials
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

ACCESS_KEY, SECRET_KEY = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
DEFAULT_ACCOUNT = "default"
_ANNOTATION = "serving.kserve.io/s3-"
# Of an annotation's end, the environment variable that kserve-storage reads.
_PLAIN = {
    "region": "AWS_DEFAULT_REGION",
    "verifyssl": "S3_VERIFY_SSL",
    "usevirtualbucket": "S3_USER_VIRTUAL_BUCKET",
    "useaccelerate": "S3_USE_ACCELERATE",
    "useanoncredential": "awsAnonymousCredential",
    "cabundle": "AWS_CA_BUNDLE",
}
_ENDPOINT = "AWS_ENDPOINT_URL"


def account_of(pod: Mapping[str, Any]) -> str:
    """The name of the pod's ServiceAccount."""
    spec = pod.get("spec") or {}
    return str(spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT_ACCOUNT)


def names_in(account: Mapping[str, Any]) -> list[str]:
    """The Secrets that a ServiceAccount names."""
    return [str(each["name"]) for each in account.get("secrets") or () if each.get("name")]


def environment_of(secret: Mapping[str, Any]) -> dict[str, str]:
    """What a Secret means for a download; empty where it has no credentials of S3."""
    data = _data(secret)
    if SECRET_KEY not in data:
        return {}
    annotations = (secret.get("metadata") or {}).get("annotations") or {}
    found = {name: data[name] for name in (ACCESS_KEY, SECRET_KEY, *_PLAIN.values()) if name in data}
    for end, name in _PLAIN.items():
        if value := annotations.get(_ANNOTATION + end):
            found[name] = str(value)
    endpoint = str(annotations.get(f"{_ANNOTATION}endpoint") or data.get("S3_ENDPOINT", ""))
    if endpoint:
        is_plain = str(annotations.get(f"{_ANNOTATION}usehttps") or data.get("S3_USE_HTTPS", "")) == "0"
        found[_ENDPOINT] = endpoint if "://" in endpoint else f"http{'' if is_plain else 's'}://{endpoint}"
    return found


def _data(secret: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = dict(secret.get("stringData") or {})
    for name, value in (secret.get("data") or {}).items():
        try:
            found[name] = base64.b64decode(value).decode()
        except (binascii.Error, ValueError):
            continue  # bytes are no credentials
    return found
