"""The one tree of errors, a class for each thing that a caller does differently.

    GlowplugError            something that the user should read: message and hint
    ├── ApiError             answered as a Kubernetes `Status` with an HTTP code and a reason
    │   ├── BadRequest       400  the request itself cannot be understood
    │   ├── Unauthorized     401  no bearer token, or a wrong one
    │   ├── Forbidden        403
    │   ├── NotFound         404
    │   ├── MethodNotAllowed 405
    │   ├── NotAcceptable    406  no form of answer that the client takes
    │   ├── AlreadyExists    409  the name is taken
    │   ├── Conflict         409  somebody wrote in between, or owns the field: read again, then retry
    │   ├── Gone             410  the resourceVersion is compacted away: list again
    │   ├── TooLarge         413
    │   ├── UnsupportedMedia 415
    │   ├── Invalid          422  the object is wrong; every problem of it, at once
    │   └── StoreFull        507  nothing was written; what was acknowledged before stays
    ├── ConfigError          flags, environment or files of glowplug itself are wrong
    ├── ManifestError        a YAML file cannot be read as objects: file, line, column
    ├── DataDirHeld          another machine owns the data directory
    ├── StorageError         a model could not be brought to this computer, or a store of features is silent
    ├── FeatureError         a feature view, or a row that it describes, is wrong
    └── InferenceError       a request to a model is wrong (400) or cannot be served now (503)

Messages say what was found, where, and what was expected; the hint says what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class GlowplugError(Exception):
    """An error for the user: `message` says what is wrong, `hint` (may be empty) what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an object.

    `field` is the path as Kubernetes writes it (`spec.predictor.minReplicas`), `reason` one of Kubernetes' cause
    types (`FieldValueInvalid`, `FieldValueRequired`, `FieldValueNotSupported`, `FieldValueForbidden`, ...).
    """

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class ApiError(GlowplugError):
    """An error that the Kubernetes API answers with; `causes` go to `details.causes` of the Status.

    `warnings` are what the client is to be told beside it.
    """

    code: int = 500
    reason: str = "InternalError"
    warnings: tuple[str, ...] = ()

    def __init__(self, message: str, *, hint: str = "", causes: Sequence[Problem] = ()) -> None:
        super().__init__(message, hint=hint)
        self.causes = tuple(causes)

    def status(self, details: dict[str, Any] | None = None) -> dict[str, Any]:
        """The Kubernetes `Status` object, with `details` (name, group, kind) merged beside the causes."""
        merged: dict[str, Any] = dict(details or {})
        if self.causes:
            merged["causes"] = [
                {"reason": cause.reason, "message": cause.message, "field": cause.field}
                for cause in self.causes
            ]
        text = f"{self.message} ({self.hint})" if self.hint else self.message
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": text,
            "reason": self.reason,
            "details": merged,
            "code": self.code,
        }


class BadRequest(ApiError):
    code = 400
    reason = "BadRequest"


class Unauthorized(ApiError):
    code = 401
    reason = "Unauthorized"


class Forbidden(ApiError):
    code = 403
    reason = "Forbidden"


class NotFound(ApiError):
    code = 404
    reason = "NotFound"


class MethodNotAllowed(ApiError):
    code = 405
    reason = "MethodNotAllowed"


class NotAcceptable(ApiError):
    code = 406
    reason = "NotAcceptable"


class AlreadyExists(ApiError):
    code = 409
    reason = "AlreadyExists"


class Conflict(ApiError):
    code = 409
    reason = "Conflict"


class Gone(ApiError):
    code = 410
    reason = "Expired"


class TooLarge(ApiError):
    code = 413
    reason = "RequestEntityTooLarge"


class UnsupportedMedia(ApiError):
    code = 415
    reason = "UnsupportedMediaType"


class Invalid(ApiError):
    code = 422
    reason = "Invalid"


class StoreFull(ApiError):
    code = 507
    reason = "InsufficientStorage"


class ConfigError(GlowplugError):
    """Flags, environment variables or files of glowplug itself are wrong."""


class ManifestError(GlowplugError):
    """A YAML file that cannot be read as objects; the message begins with file, line and column."""


class DataDirHeld(GlowplugError):
    """Another machine runs on this data directory."""


class StorageError(GlowplugError):
    """A model could not be brought to this computer."""


class FeatureError(GlowplugError):
    """A feature view, or a row that it describes, is wrong."""


class InferenceError(GlowplugError):
    """A request to a model that is wrong (`code` 400) or that cannot be served (404, 413, 503)."""

    def __init__(self, message: str, *, hint: str = "", code: int = 400) -> None:
        super().__init__(message, hint=hint)
        self.code = code
