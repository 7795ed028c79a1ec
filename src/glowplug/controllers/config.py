"""What the controllers are told, with every default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ControllersConfig:
    """Settings of all control loops; times in seconds."""

    # Where the ingress listens, without a trailing slash: the base of every URL in a status.
    ingress_url: str = "http://127.0.0.1:8080"
    domain: str = "localhost"
    # The secret by which pods whose serving container has this image copy requests by themselves; empty: they do not.
    copy_key_of: Callable[[str], str] = lambda image: ""
    # Knative's default for serving.knative.dev/progress-deadline (config-deployment).
    progress_deadline_s: float = 600.0
    # Between the moment when no route leads to a revision any more and the end of its pods: what a proxy still had
    # decided on the old table arrives.
    retire_delay_s: float = 2.0
    # After that, how often it is looked whether requests still wait for its pods.
    retire_poll_s: float = 1.0
    # Revisions without traffic that a Configuration keeps (min-non-active-revisions in Knative's config-gc).
    kept_revisions: int = 20
    # A pod that failed is replaced no sooner than this after it was made.
    failed_pod_backoff_s: float = 10.0
    # Back-off of a key whose reconciliation raised: doubles from the first to the last of these.
    retry_base_s: float = 0.05
    retry_max_s: float = 60.0
