"""An InferenceService's status, from the Knative Services of its components. Pure.

Source: KServe's pkg/apis/serving/v1beta1/inference_service_status.go and its ingress reconciler with a path template.
In one thing it differs: observedGeneration is the InferenceService's own (KServe copies the Knative Service's), and it
moves on only when every Knative Service has observed its own spec.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .. import conditions
from ..conditions import Condition
from ..metadata import Object, at, copied, generation_of, observed_generation_of
from .component import PREDICTOR, TRANSFORMER
from .runtimes import Rejection, Runtime

PREDICTOR_READY = "PredictorReady"
INGRESS_READY = "IngressReady"
ROUTES_READY = "RoutesReady"
LATEST_DEPLOYMENT_READY = "LatestDeploymentReady"
STOPPED = "Stopped"
DEPENDENTS = (PREDICTOR_READY, INGRESS_READY)
# A Knative Service was refused: what runs is not what the spec says.
RECONCILE_FAILED = "ReconcileFailed"


@dataclass(frozen=True)
class Observed:
    """A component as it is: its Knative Service after this reconciliation, and why its spec was not accepted."""

    type: str
    name: str
    service: Object | None
    rejection: Rejection | None = None
    runtime: Runtime | None = None


def inference_service_status(isvc: Object, components: list[Observed], url: str, now: float) -> Object:
    """The status without `modelStatus`; `url` is where the InferenceService is reached."""
    status: Object = copied(isvc.get("status") or {})
    known = {c.type: c for c in map(_condition, status.get("conditions") or ())}
    present = status.get("components") or {}
    status["components"] = {
        observed.type: component_status(present.get(observed.type) or {}, observed.service)
        for observed in components
    }
    wanted: dict[str, Condition] = {}
    for observed in components:
        wanted |= _component_conditions(observed, known)
    types = [observed.type for observed in components]
    wanted[ROUTES_READY] = _across(ROUTES_READY, types, "RouteReady", wanted)
    wanted[LATEST_DEPLOYMENT_READY] = _across(LATEST_DEPLOYMENT_READY, types, "ConfigurationReady", wanted)
    wanted[STOPPED] = Condition(STOPPED, "False")
    entrance = TRANSFORMER if TRANSFORMER in types else PREDICTOR
    if at(status, "components", entrance, "url"):
        status["url"] = url
        status["address"] = {"url": url}
        wanted[INGRESS_READY] = conditions.true(INGRESS_READY)
    else:
        wanted[INGRESS_READY] = conditions.unknown(INGRESS_READY)
    status["conditions"] = _settled(status.get("conditions"), wanted.values(), now)
    status["deploymentMode"] = "Knative"
    _set_runtime(status, components)
    if all(map(_is_current, components)) or "observedGeneration" not in status:
        status["observedGeneration"] = generation_of(isvc)
    return status


def choose_entrance(isvc: Object, status: Object, components: list[Observed], stale: list[str]) -> str:
    """The Knative Service that takes the InferenceService's requests: the transformer, else the predictor.

    While a new entrance has never been ready, requests go on to the one that took them before: to the predictor if a
    transformer was added, to one of the `stale` services (with traffic, but no longer in the spec) if it was removed.
    `status` is the new one, `isvc` still has the old one.
    """
    wanted = components[-1]
    if wanted.type == TRANSFORMER:
        was_predictor = at(isvc, "status", "url") and not at(isvc, "status", "components", TRANSFORMER, "url")
        if was_predictor and not at(status, "components", TRANSFORMER, "url"):
            return components[0].name
        return wanted.name
    return wanted.name if is_up_to_date(wanted.service) or not stale else stale[-1]


def is_up_to_date(service: Object | None) -> bool:
    """Whether a Knative Service is ready with its present spec."""
    if service is None or observed_generation_of(service) != generation_of(service):
        return False
    return conditions.is_true(service)


def stopped_status(isvc: Object, types: list[str], now: float) -> Object:
    """The status of an InferenceService that is annotated `serving.kserve.io/stop: "true"`."""
    status: Object = isvc.get("status") or {}
    wanted = [conditions.false(_condition_type(type, "Ready"), "Stopped") for type in types]
    wanted += [conditions.false(INGRESS_READY, "Stopped"), conditions.true(STOPPED)]
    return {
        "conditions": _settled(status.get("conditions"), wanted, now),
        "deploymentMode": "Knative",
        "observedGeneration": generation_of(isvc),
        "modelStatus": {"transitionStatus": ""},
    }


def component_status(before: Object, service: Object | None) -> Object:
    """`status.components.<type>`: revisions, traffic and URL of the component's Knative Service."""
    result: Object = copied(before)
    if service is None or observed_generation_of(service) != generation_of(service):
        return result
    status = service["status"]
    created, ready = status.get("latestCreatedRevisionName"), status.get("latestReadyRevisionName")
    _roll(result, status, created, ready, conditions.find(service, "ConfigurationsReady"))
    _put(result, "latestCreatedRevision", created)
    _put(result, "latestReadyRevision", ready)
    _put(result, "traffic", status.get("traffic"))
    if conditions.is_true(service):
        for field in ("url", "address"):
            if status.get(field):
                result[field] = status[field]
    return result


def _roll(
    result: Object, status: Object, created: str | None, ready: str | None, configured: Condition | None
) -> None:
    traffic = status.get("traffic") or ()
    share = sum(target.get("percent") or 0 for target in traffic if target["revisionName"] == ready)
    # Before the Configuration has seen a new template, its latest revision is the old one.
    is_configured = ready == created and configured is not None and configured.status == "True"
    for target in traffic:
        if target["revisionName"] != ready or not target.get("latestRevision"):
            continue
        percent = target.get("percent") or 0
        if result.get("latestRolledoutRevision") != ready:
            if percent == 100:
                _put(result, "previousRolledoutRevision", result.get("latestRolledoutRevision"))
                result["latestRolledoutRevision"] = ready
        elif is_configured and percent < 100 and share == 100:
            # The latest was rolled out and is taken back: its traffic is written as two shares of one revision.
            _put(result, "latestRolledoutRevision", result.get("previousRolledoutRevision"))


def _settled(before: list[Object] | None, wanted: Iterable[Condition], now: float) -> list[Object]:
    """Our own conditions, among those that other controllers have written: as KServe, we leave them alone."""
    foreign = [entry for entry in before or () if not _is_own(entry["type"])]
    settled = conditions.settle(before, wanted, DEPENDENTS, now)
    return sorted([*settled, *foreign], key=lambda entry: str(entry["type"]))


def _is_own(type: str) -> bool:
    is_of_component = type.startswith((PREDICTOR.capitalize(), TRANSFORMER.capitalize()))
    return is_of_component or type in (
        conditions.READY,
        INGRESS_READY,
        ROUTES_READY,
        LATEST_DEPLOYMENT_READY,
        STOPPED,
    )


def _component_conditions(observed: Observed, known: dict[str, Condition]) -> dict[str, Condition]:
    found: dict[str, Condition] = {}
    for suffix, source in (
        ("Ready", conditions.READY),
        ("RouteReady", "RoutesReady"),
        ("ConfigurationReady", "ConfigurationsReady"),
    ):
        type = _condition_type(observed.type, suffix)
        condition = conditions.find(observed.service, source)
        if condition is not None:
            found[type] = condition.renamed(type)
        elif observed.service is not None and type in known:
            found[type] = known[type]
        else:
            found[type] = conditions.unknown(type)
    if observed.rejection is not None and (
        observed.service is None or observed.rejection.reason == RECONCILE_FAILED
    ):
        type = _condition_type(observed.type, "Ready")
        found[type] = conditions.false(type, observed.rejection.reason, observed.rejection.message)
    return found


def _across(type: str, components: list[str], suffix: str, found: dict[str, Condition]) -> Condition:
    result = conditions.true(type)
    for component in components:
        condition = found[_condition_type(component, suffix)]
        if condition.status != "True":
            result = Condition(type, condition.status, f"{condition.type} not ready")
    return result


def _condition_type(component: str, suffix: str) -> str:
    return component.capitalize() + suffix


def _set_runtime(status: Object, components: list[Observed]) -> None:
    chosen = [observed.runtime for observed in components if observed.runtime is not None]
    if not chosen:
        return
    status.pop("servingRuntimeName", None)
    status.pop("clusterServingRuntimeName", None)
    field = "clusterServingRuntimeName" if chosen[0].is_cluster_wide else "servingRuntimeName"
    status[field] = chosen[0].name


def _is_current(observed: Observed) -> bool:
    if observed.service is None:
        return observed.rejection is not None
    is_observed = observed_generation_of(observed.service) == generation_of(observed.service)
    return observed.rejection is None and is_observed


def _condition(entry: Object) -> Condition:
    return Condition(entry["type"], entry["status"], entry.get("reason", ""), entry.get("message", ""))


def _put(into: Object, field: str, value: object) -> None:
    if value:
        into[field] = value
