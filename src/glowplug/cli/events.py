"""`events`: send events to a Broker, look at what it has, send it again.

`send` and `replay` work with any Broker that has an address, a cluster's too. What was accepted and what became a dead
letter only the local machine tells.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import sys
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from glowplug.cli import options, output
from glowplug.errors import ApiError, BadRequest, ConfigError, NotFound

if TYPE_CHECKING:
    from glowplug.cli.kube import Cluster

app = typer.Typer(
    help="CloudEvents: send them to a Broker, watch, replay, and see what could not be delivered.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
BrokerName = Annotated[str, typer.Option("--broker", "-b", help="The Broker's name.", metavar="NAME")]
Type = Annotated[
    str, typer.Option("--type", help="Only events of this type; a * at its end stands for more.")
]
_SEND_TIMEOUT_S = 30.0


@app.callback()
def _group() -> None:
    """CloudEvents: send them to a Broker, watch, replay, and see what could not be delivered."""


@app.command(epilog="Example: glowplug events send --type dev.glowplug.data.arrived -d arrived.json")
def send(
    type: Annotated[str, typer.Option("--type", help="The event's type.")],
    data: Annotated[
        Optional[str],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option("--data", "-d", help="A file with the data; - is stdin; default: none.", metavar="FILE"),
    ] = None,
    source: Annotated[str, typer.Option(help="Where it happened, a URI-reference.")] = "/glowplug/cli",
    subject: Annotated[str, typer.Option(help="What it is about.")] = "",
    id: Annotated[str, typer.Option("--id", help="Default: a new UUID.")] = "",
    content_type: Annotated[str, typer.Option("--content-type", help="Of the data.")] = "application/json",
    extensions: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--extension", "-e", help="A further attribute; may be repeated.", metavar="NAME=VALUE"),
    ] = None,
    broker: BrokerName = "default",
    to: Annotated[str, typer.Option("--to", help="A URL, instead of a Broker.", metavar="URL")] = "",
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Send one event; its id is printed once the Broker has it."""
    attributes = {"specversion": "1.0", "id": id or str(uuid.uuid4()), "source": source, "type": type}
    attributes["time"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    if subject:
        attributes["subject"] = subject
    attributes.update(_pairs(extensions or []))
    if data is not None:
        attributes["datacontenttype"] = content_type
    url = to or _broker_url(kubeconfig, context, namespace, broker)
    _post(attributes, None if data is None else _content(data), url)
    print(attributes["id"])


@app.command(epilog="Example: glowplug events tail --type 'dev.glowplug.*'")
def tail(
    broker: BrokerName = "default",
    after: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--after", help="From behind this number; 0: all that is kept. Default: the newest."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Wait for more.")] = True,
    type: Type = "",
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Print events as the Broker accepts them, a line of JSON each: number, acceptedAt, event."""
    from glowplug.cli import kube

    cluster = kube.connect(kubeconfig, context, namespace)
    _print(
        line for line in _events(cluster, broker, after, follow=follow) if _matches(json.loads(line), type)
    )


@app.command(epilog="Example: glowplug events replay --after 120 --before 131")
def replay(
    after: Annotated[int, typer.Option("--after", help="From behind this number, see `events tail`.")],
    before: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--before", help="Up to before this number; default: all that there are now."),
    ] = None,
    broker: BrokerName = "default",
    type: Type = "",
    to: Annotated[str, typer.Option("--to", help="A URL, instead of the Broker.", metavar="URL")] = "",
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Send events that the Broker still has once more: to the Broker, that is to all its Triggers, or to a URL.

    They keep their ids, so that whoever takes an event once only can tell.
    """
    from glowplug.cli import kube

    cluster = kube.connect(kubeconfig, context, namespace)
    url = to or _url_of(cluster, broker)
    last = _last(cluster, broker)
    count = 0
    for line in _events(cluster, broker, after, follow=False):
        found = json.loads(line)
        if found["number"] > last or (before is not None and found["number"] >= before):
            break
        if _matches(found, type):
            _post_structured(url, found["event"])
            count += 1
    output.done(f"{count} events sent to {url}")


@app.command("dead-letters", epilog="Example: glowplug events dead-letters --broker default")
def dead_letters(
    broker: BrokerName = "default",
    after: Annotated[int, typer.Option("--after", help="From behind this number.")] = 0,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Print events that neither a subscriber nor a dead-letter sink took, and why; a line of JSON each."""
    from glowplug.cli import kube

    cluster = kube.connect(kubeconfig, context, namespace)
    _print(_pages(cluster, f"/dead-letters/{cluster.namespace}/{broker}", after))


def _broker_url(
    kubeconfig: pathlib.Path | None, context: str | None, namespace: str | None, broker: str
) -> str:
    from glowplug.cli import kube

    return _url_of(kube.connect(kubeconfig, context, namespace), broker)


def _url_of(cluster: Cluster, broker: str) -> str:
    """Where a Broker takes events. Raises NotFound, or ConfigError where it has no address yet."""
    resource = cluster.resource_named("brokers.eventing.knative.dev")
    status = cluster.get(resource.path(cluster.namespace, broker)).get("status") or {}
    url = (status.get("address") or {}).get("url")
    if not url:
        raise ConfigError(
            f"Broker {broker} in namespace {cluster.namespace} has no address",
            hint=f"`kubectl describe broker {broker}` says why",
        )
    return str(url)


def _last(cluster: Cluster, broker: str) -> int:
    return int(json.loads(_page(cluster, f"/events/{cluster.namespace}/{broker}"))["last"])


def _events(cluster: Cluster, broker: str, after: int | None, *, follow: bool) -> Iterator[str]:
    path = f"/events/{cluster.namespace}/{broker}"
    last = after if after is not None else max(0, _last(cluster, broker) - (0 if follow else 10))
    while True:
        for line in _pages(cluster, path, last):
            last = json.loads(line)["number"]
            yield line
        if not follow:
            return
        for line in _page(cluster, f"{path}/after/{last}/wait").splitlines():
            last = json.loads(line)["number"]
            yield line


def _pages(cluster: Cluster, path: str, after: int) -> Iterator[str]:
    while lines := _page(cluster, f"{path}/after/{after}").splitlines():
        yield from lines
        after = json.loads(lines[-1])["number"]


def _page(cluster: Cluster, path: str) -> str:
    try:
        with cluster.stream(path, {}) as response:
            return response.read().decode()
    except ApiError as error:
        if error.code != 404:
            raise
        raise NotFound(
            f"nothing is known of events at {path}",
            hint="the local machine keeps them for the Brokers of its own log, see `glowplug get brokers`; a Broker "
            "of class Kafka has them in topics, which its status names, and a cluster keeps none",
        ) from None


def _matches(found: Mapping[str, Any], type: str) -> bool:
    own = str(found["event"].get("type", ""))
    return own.startswith(type[:-1]) if type.endswith("*") else type in ("", own)


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, sign, _ in pairs:
        if not (sign and name.isascii() and name.isalnum() and name == name.lower()):
            raise typer.BadParameter(
                f"{name}{sign}: expected NAME=VALUE, NAME of lower-case letters and digits"
            )
    return {name: value for name, _, value in pairs}


def _content(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else pathlib.Path(file).read_bytes()


def _post(attributes: dict[str, str], data: bytes | None, url: str) -> None:
    from glowplug.wire.events import CloudEvent, encode_binary

    headers, body = encode_binary(CloudEvent(attributes, data))
    _send(url, headers, body)


def _post_structured(url: str, event: Mapping[str, Any]) -> None:
    # The arrival is the Broker's to say, and what an end says is of the first way.
    rest = {name: value for name, value in event.items() if not name.startswith("knative")}
    _send(url, {"content-type": "application/cloudevents+json"}, json.dumps(rest).encode())


def _send(url: str, headers: Mapping[str, str], body: bytes) -> None:
    import httpx2

    try:
        answer = httpx2.post(
            url, headers=dict(headers), content=body, timeout=_SEND_TIMEOUT_S, trust_env=False
        )
    except httpx2.TransportError as error:
        raise ConfigError(
            f"{url} cannot be reached: {error}",
            hint="is the local machine up? a cluster's Broker is reached from within the cluster only",
        ) from error
    if answer.status_code >= 300:
        raise BadRequest(f"{url} answered {answer.status_code}: {answer.text.strip()[:500]}")


def _print(lines: Iterator[str]) -> None:
    try:
        for line in lines:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
