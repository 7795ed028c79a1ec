"""Options that several verbs share, each described once."""

from __future__ import annotations

import pathlib
from typing import Annotated, Optional

import typer

DataDir = Annotated[
    pathlib.Path,
    typer.Option(
        "--data-dir", envvar="GLOWPLUG_DATA_DIR", help="Where the machine keeps everything.", metavar="DIR"
    ),
]
Kubeconfig = Annotated[
    Optional[pathlib.Path],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
    typer.Option(
        "--kubeconfig",
        help="Default: KUBECONFIG, else ./.glowplug/kubeconfig, else ~/.kube/config.",
        metavar="FILE",
    ),
]
Context = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--context", help="A context of the kubeconfig.", metavar="NAME"),
]
Namespace = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--namespace", "-n", help="Default: the context's namespace.", metavar="NAME"),
]
HealthPort = Annotated[
    int,
    typer.Option(
        "--health-port", min=0, max=65535, help="Where GET /healthz is answered; 0 nowhere.", metavar="PORT"
    ),
]
