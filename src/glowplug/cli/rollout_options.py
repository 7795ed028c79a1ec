"""The options of `glowplug rollout run`, as typer reads them."""

from __future__ import annotations

import pathlib
from typing import Annotated, Optional

import typer

PrometheusUrl = Annotated[
    str, typer.Option(help="Where to ask how requests fare; the local machine tells it itself.")
]
LabelsUrl = Annotated[
    str,
    typer.Option(
        envvar="GLOWPLUG_LABELS_URL",
        help="The drift detector's /metrics, for the gate `loss`.",
        metavar="URL",
    ),
]
Sink = Annotated[str, typer.Option(envvar="K_SINK", help="Where to send CloudEvents.", metavar="URL")]
Interval = Annotated[float, typer.Option("--interval", min=0.2, max=60, help="Seconds between looks.")]
WebhookService = Annotated[
    str,
    typer.Option(
        help="The Service by which the API reaches this process; default: by URL, on this computer.",
        metavar="NAMESPACE/NAME",
    ),
]
WebhookPort = Annotated[
    int, typer.Option(min=0, max=65535, help="Where the webhook listens; 0 takes a free one.")
]
WebhookName = Annotated[
    str,
    typer.Option(
        help="Of the webhook's configuration; controllers of different namespaces need different ones.",
        metavar="NAME",
    ),
]
CertificateDir = Annotated[
    Optional[pathlib.Path],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
    typer.Option(help="tls.crt, tls.key and ca.crt; default: the webhook makes its own.", metavar="DIR"),
]
LeaseNamespace = Annotated[str, typer.Option(help="Where the lease is that only one can hold.")]
LeaseDuration = Annotated[
    int, typer.Option("--lease-duration", min=2, max=300, help="Seconds until a dead holder is replaced.")
]
BlindAfter = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--blind-after", min=1, help="Seconds without any measurement until it is told."),
]
Only = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--only",
        "--namespace",
        envvar="GLOWPLUG_NAMESPACES",
        help="Look after this namespace only; may be repeated.",
        metavar="NAMESPACE",
    ),
]
