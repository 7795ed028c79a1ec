"""Where a model may come from: the `storageUri`s that this machine can bring to a pod."""

from __future__ import annotations

import re
from collections.abc import Iterator

from glowplug.errors import Problem
from glowplug.spec.validation import DNS_1123_SUBDOMAIN, FORBIDDEN, invalid, shown

SCHEMES = ("file", "gs", "hdfs", "hf", "http", "https", "modelscope", "pvc", "s3", "webhdfs")
_IMAGE_SCHEMES = ("oci", "oci+fetch", "oci+native")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", re.ASCII)
_MAX_LENGTH = 4096


def validate(uri: str, field: str) -> Iterator[Problem]:
    """Problems of a storage URI: a scheme of SCHEMES, or a local path."""
    match = _SCHEME.match(uri)
    if not uri or len(uri) > _MAX_LENGTH:
        yield invalid(field, uri, f"must be a storage URI of 1 to {_MAX_LENGTH} characters")
    elif match is None:
        yield from _local_path(uri, field)
    elif match.group(1) in _IMAGE_SCHEMES:
        why = "a model in a container image needs a container runtime, which the local machine does not have"
        yield Problem(field, f"Forbidden: {shown(uri)}: {why}; use one of {_prefixes()}", FORBIDDEN)
    elif match.group(1) not in SCHEMES:
        yield invalid(field, uri, f"storageUri, must be one of: [{_prefixes()}] or be an absolute local path")
    elif not uri[match.end() :].strip("/"):
        yield invalid(field, uri, "names no location after the scheme")
    elif match.group(1) == "pvc":
        yield from _claim(uri, uri[match.end() :], field)


def _prefixes() -> str:
    return ", ".join(f"{scheme}://" for scheme in SCHEMES)


def _local_path(uri: str, field: str) -> Iterator[Problem]:
    if not uri.startswith("/"):
        yield invalid(field, uri, f"storageUri, must be one of: [{_prefixes()}] or be an absolute local path")


def _claim(uri: str, rest: str, field: str) -> Iterator[Problem]:
    claim, _, path = rest.partition("/")
    for fault in DNS_1123_SUBDOMAIN.faults(claim):
        yield invalid(field, uri, f"the volume claim's name: {fault}")
    if ".." in path.split("/"):
        yield invalid(field, uri, "the path must stay inside the volume, without '..'")
