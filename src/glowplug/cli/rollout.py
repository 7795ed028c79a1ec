"""`rollout`: run the controller, see how a rollout goes, and take it in hand."""

from __future__ import annotations

import json
import pathlib
import time
from typing import Annotated, Any

import typer

from glowplug.cli import controllers, options, output, rollout_options
from glowplug.errors import Forbidden, GlowplugError
from glowplug.spec import names
from glowplug.spec.times import parse_time

app = typer.Typer(
    help="Rollouts: new versions that get more requests step by step, and are judged at each.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_KIND = ("serving.kserve.io/v1beta1", "InferenceService")
_TAKEN_WITHIN_S = 10.0
_TOLD_WITHIN_S = 2.0
_LEASE = "glowplug-rollout"
_LEASE_S = 15
_REFUSED = "RolloutActionRefused"
Name = Annotated[str, typer.Argument(help="An InferenceService.")]


@app.command(
    epilog="Examples: glowplug rollout run;"
    " glowplug rollout run --context my-cluster --prometheus-url http://127.0.0.1:9090"
)
def run(
    prometheus_url: rollout_options.PrometheusUrl = "",
    labels_url: rollout_options.LabelsUrl = "",
    sink: rollout_options.Sink = "",
    interval_s: rollout_options.Interval = 1.0,
    webhook_service: rollout_options.WebhookService = "",
    webhook_port: rollout_options.WebhookPort = 0,
    webhook_name: rollout_options.WebhookName = "rollout",
    certificate_dir: rollout_options.CertificateDir = None,
    lease_namespace: rollout_options.LeaseNamespace = "default",
    lease_duration_s: rollout_options.LeaseDuration = 15,
    blind_after_s: rollout_options.BlindAfter = None,
    health_port: options.HealthPort = 0,
    only: rollout_options.Only = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Look after every InferenceService with the annotation glowplug.dev/rollout-steps: "10,25,50", until stopped.

    Further annotations: rollout-interval (15m), the least time at each step, and rollout-gates
    ("errors<=+0.5%, p50<=1.1x, p99<=1.1x"), what the new version is held to beside the old one.
    """
    # They tell of every request, ours and a probe's, and of every event of a watch.
    controllers.log_to_stderr("httpx2", "aiohttp.access", "kopf.objects")
    connection = controllers.connected(kubeconfig, context)
    from glowplug.rollout import operator

    config = operator.OperatorConfig(
        interval_s=interval_s,
        namespaces=tuple(only or ()),
        prometheus_url=prometheus_url,
        labels_url=labels_url,
        sink=sink,
        service=webhook_service,
        webhook_port=webhook_port,
        webhook_name=webhook_name,
        certificate_dir=certificate_dir,
        lease_namespace=lease_namespace,
        lease_duration_s=lease_duration_s,
        blind_after_s=blind_after_s,
        health_port=health_port,
    )
    operator.run(connection, config)


@app.command(epilog="Example: glowplug rollout status flights")
def status(
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="As the controller wrote it.")] = False,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Show how far a rollout is, what its gates say, and what happened; some seconds old at most."""
    cluster, path = _found(name, kubeconfig, context, namespace)
    isvc = cluster.get(path)
    text = (isvc["metadata"].get("annotations") or {}).get(names.ROLLOUT_STATE)
    if as_json:
        print(json.dumps(json.loads(text or "{}"), indent=2))
        return
    _check_asked(isvc, name)
    print("\n".join([*_lines(isvc), *_unattended(cluster), *_events(cluster, isvc)]))
    output.next_steps(*_next(isvc, name))


@app.command(epilog="Example: glowplug rollout pause flights")
def pause(
    name: Name,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Stay at the present weight; a new version that fails is still rolled back."""
    _act("pause", name, kubeconfig, context, namespace)


@app.command(epilog="Example: glowplug rollout resume flights")
def resume(
    name: Name,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Go on after a pause."""
    _act("resume", name, kubeconfig, context, namespace)


@app.command(epilog="Example: glowplug rollout promote flights")
def promote(
    name: Name,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Give the new version all requests at once, whatever the judge says."""
    _act("promote", name, kubeconfig, context, namespace)


@app.command(epilog="Example: glowplug rollout abort flights")
def abort(
    name: Name,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Give the old version all requests until the spec changes again."""
    _act("abort", name, kubeconfig, context, namespace)


def _act(
    action: str, name: str, kubeconfig: pathlib.Path | None, context: str | None, namespace: str | None
) -> None:
    """Annotates the service, and waits until a controller has taken it."""
    cluster, path = _found(name, kubeconfig, context, namespace)
    _check_asked(cluster.get(path), name)
    patch = {"metadata": {"annotations": {names.ROLLOUT_ACTION: action}}}
    cluster.request(
        "PATCH",
        path,
        body=json.dumps(patch).encode(),
        headers={"Content-Type": "application/merge-patch+json"},
    )
    isvc = _taken(cluster, path, action)
    told = _events(cluster, isvc, most=3)
    print("\n".join([*_lines(isvc), *told]))
    if told and _REFUSED in told[-1]:
        raise GlowplugError(told[-1].partition(f"{_REFUSED}: ")[2], hint=f"`glowplug rollout status {name}`")
    output.next_steps(*_next(isvc, name))


def _taken(cluster: Any, path: str, action: str) -> Any:
    """The service once a controller has taken the action, and told what came of it where that takes no longer."""
    from glowplug.rollout import record

    end = time.monotonic() + _TAKEN_WITHIN_S
    while True:
        isvc = cluster.get(path)
        annotations = isvc["metadata"].get("annotations") or {}
        is_late = time.monotonic() > end
        if names.ROLLOUT_ACTION not in annotations:
            state = record.load(annotations.get(names.ROLLOUT_STATE))
            if is_late or state is None or not state.news:
                return isvc
            # A CloudEvent may wait for its sink for long; what we show is told with the first attempt.
            end = min(end, time.monotonic() + _TOLD_WITHIN_S)
        elif is_late:
            raise GlowplugError(
                f"no controller has taken {action!r} within {_TAKEN_WITHIN_S:.0f} s; it takes it when it runs",
                hint="start one with `glowplug rollout run`",
            )
        time.sleep(0.1)


def _found(
    name: str, kubeconfig: pathlib.Path | None, context: str | None, namespace: str | None
) -> tuple[Any, str]:
    """The cluster, and the path of the InferenceService."""
    from glowplug.cli import kube

    cluster = kube.connect(kubeconfig, context, namespace)
    path = cluster.resource_of(*_KIND).path(cluster.namespace, name)
    with kube.hinted("isvc"):
        cluster.get(path)
    return cluster, path


def _check_asked(isvc: Any, name: str) -> None:
    if names.ROLLOUT_STEPS not in (isvc["metadata"].get("annotations") or {}):
        raise GlowplugError(
            f'InferenceService "{name}" asks for no rollouts',
            hint=f"`kubectl annotate isvc {name} {names.ROLLOUT_STEPS}=10,25,50`",
        )


def _lines(isvc: Any) -> list[str]:
    from glowplug.rollout import conditions, record
    from glowplug.rollout.state import Phase, State

    annotations = isvc["metadata"].get("annotations") or {}
    state = record.load(annotations.get(names.ROLLOUT_STATE)) or State()
    found = [
        each
        for each in (isvc.get("status") or {}).get("conditions") or ()
        if each["type"] in conditions.TYPES
    ]
    invalid = [each["message"] for each in found if each.get("reason") == conditions.INVALID]
    if invalid:
        return [f"refused: {invalid[0]}"]
    if state.phase is Phase.IDLE:
        return ["no rollout yet: while `glowplug rollout run` runs, the next change of the spec starts one"]
    phase = f"{state.phase.value}, paused" if state.is_paused else state.phase.value
    now = "done" if state.weight is None else f"now {state.weight} %"
    lines = [
        f"{phase}: {conditions.describe(state)}",
        f"  steps {annotations.get(names.ROLLOUT_STEPS, '')}; {now}",
    ]
    if state.verdict is not None:
        lines.append(f"  verdict: {state.verdict.outcome.value}")
        lines += [f"    {gate.outcome.value:<12}  {gate.reason}" for gate in state.verdict.gates]
    return lines


def _unattended(cluster: Any) -> list[str]:
    """Who reads what no controller has looked at for a while should know it."""
    path = "/apis/coordination.k8s.io/v1/leases"
    try:
        leases = cluster.get(path, fieldSelector=f"metadata.name={_LEASE}")["items"]
    except Forbidden:
        return []
    now = time.time()
    for lease in leases:
        spec = lease.get("spec") or {}
        renewed = parse_time(spec.get("renewTime"))
        # A busy one may be late.
        lasts_s = 2 * max(spec.get("leaseDurationSeconds") or 0, _LEASE_S)
        if renewed is not None and now <= renewed.timestamp() + lasts_s:
            return []
    return ["  ! no controller is at work: what is above may be old; start one with `glowplug rollout run`"]


def _events(cluster: Any, isvc: Any, most: int = 8) -> list[str]:
    meta = isvc["metadata"]
    found = cluster.get(
        f"/api/v1/namespaces/{cluster.namespace}/events", fieldSelector=f"involvedObject.name={meta['name']}"
    )["items"]
    # Those of a deleted one of the same name stay for an hour.
    ours = [
        each
        for each in found
        if each["involvedObject"].get("uid") in (None, "", meta["uid"])
        and str(each.get("reason", "")).startswith(("Rollout", "Shadow"))
    ]
    ours.sort(
        key=lambda each: (each.get("lastTimestamp") or "", int(each["metadata"].get("resourceVersion") or 0))
    )
    return [
        f"  {each.get('lastTimestamp') or ''}  {each['reason']}: {each.get('message', '')}"
        for each in ours[-most:]
    ]


def _next(isvc: Any, name: str) -> list[str]:
    from glowplug.rollout import record
    from glowplug.rollout.state import Phase, State

    annotations = isvc["metadata"].get("annotations") or {}
    state = record.load(annotations.get(names.ROLLOUT_STATE)) or State()
    if not state.is_active:
        verbs = ["promote"] if state.phase is Phase.ROLLED_BACK else []
        return [*(f"glowplug rollout {verb} {name}" for verb in verbs), f"kubectl describe isvc {name}"]
    if state.phase is Phase.STARTING:
        # Not yet `promote`: of a version that isn't ready it is refused.
        return [f"glowplug logs {name}", f"glowplug rollout abort {name}"]
    if state.phase is not Phase.PROGRESSING:
        return [f"glowplug rollout status {name}"]
    verbs = ["resume" if state.is_paused else "pause", "promote", "abort"]
    return [f"glowplug rollout {verb} {name}" for verb in verbs]
