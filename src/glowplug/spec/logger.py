"""What a revision logs of its payloads: KServe's `logger` as its annotations carry it. Pure.

A revision has the settings of its own component, so a canary may log what the revision in use does not; a changed
logger is a new revision, as in KServe. How many of the requests are told of is ours: the annotation
`glowplug.dev/logger-sample-percent`, for KServe's logger has no such field and tells of all. A KServe cluster takes no
notice of it.
Source: KServe's pkg/webhook/admission/pod/agent_injector.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from glowplug.errors import Problem
from glowplug.spec import names, shadowing
from glowplug.spec.validation import invalid

INTERNAL = "internal.serving.kserve.io"
ENABLED = f"{INTERNAL}/logger"
MODE = f"{INTERNAL}/logger-mode"
SINK = f"{INTERNAL}/logger-sink-url"
METADATA_HEADERS = f"{INTERNAL}/logger-metadata-headers"
METADATA_ANNOTATIONS = f"{INTERNAL}/logger-metadata-annotations"
# It goes with each copy of a request; beyond that annotations are left out.
_MAX_TEXT = 12 * 1024
# Of one body, a request's or an answer's; what is larger is not told of.
MAX_BODY_BYTES = 4 * 1024 * 1024
# What KServe comes with (ConfigMap inferenceservice-config, `logger.defaultUrl`).
DEFAULT_URL = "http://default-broker"
_EXPECTED = (
    'must be a number of percent from 0 to 100, such as "20" or "0.5": that share of the requests is logged; remove '
    "the annotation for all"
)


@dataclass(frozen=True)
class Logger:
    """`headers` are those to be told of with an event, `annotations` the same of the service, with their values."""

    service: str
    namespace: str
    component: str
    revision: str
    url: str = DEFAULT_URL
    mode: str = "all"
    headers: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    percent: float = 100.0

    @property
    def tells_requests(self) -> bool:
        return self.mode in ("all", "request")

    @property
    def tells_responses(self) -> bool:
        return self.mode in ("all", "response")

    def to_text(self) -> str:
        """As a route gives it with each copy."""
        fields = asdict(self)
        while len(text := json.dumps(fields, separators=(",", ":"))) > _MAX_TEXT and fields["annotations"]:
            fields["annotations"] = fields["annotations"][:-1]
        return text

    @classmethod
    def from_text(cls, text: str) -> Logger:
        """What `to_text` wrote. Raises ValueError or TypeError for anything else."""
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("a logger is an object")
        headers, annotations = fields.pop("headers"), fields.pop("annotations")
        return cls(**fields, headers=tuple(headers), annotations=tuple((k, v) for k, v in annotations))


def logger_of(revision: Mapping[str, Any]) -> Logger | None:
    """What the revision (an object of the API) logs; None if nothing."""
    metadata = revision.get("metadata") or {}
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    service = labels.get(names.INFERENCE_SERVICE_LABEL)
    if ENABLED not in annotations or not service:
        return None
    percent = shadowing.parse(annotations.get(names.LOGGER_SAMPLE_PERCENT, "100"))
    keys = _list(annotations.get(METADATA_ANNOTATIONS, ""))
    return Logger(
        service=service,
        namespace=metadata.get("namespace", ""),
        component=labels.get(names.COMPONENT_LABEL, ""),
        revision=metadata.get("name", ""),
        url=annotations.get(SINK) or DEFAULT_URL,
        mode=annotations.get(MODE) or "all",
        headers=_list(annotations.get(METADATA_HEADERS, "")),
        annotations=tuple((key, annotations[key]) for key in keys if key in annotations),
        percent=100.0 if percent is None else percent,
    )


def problems(annotations: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with the annotation of the share, if it is there."""
    text = annotations.get(names.LOGGER_SAMPLE_PERCENT)
    if text is not None and shadowing.parse(text) is None:
        yield invalid(f"metadata.annotations[{names.LOGGER_SAMPLE_PERCENT}]", text, _EXPECTED)


def _list(text: str) -> tuple[str, ...]:
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)
