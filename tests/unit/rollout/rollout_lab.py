"""A service of two components in virtual time: what KServe makes of its percents, by KServe's own rules.

Source of the rules: createKnativeService and PropagateStatus of KServe's controller, in their plainest form: everything
that is written is in force at the next `settle`.
"""

from __future__ import annotations

import copy
from typing import Any

from glowplug.spec import names

Object = dict[str, Any]


def service(*components: str, **annotations: str) -> Object:
    """An InferenceService `f` that has been rolled out once; `rollout_steps="10,50"` and so on are its annotations."""
    kept = {f"glowplug.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    isvc: Object = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "f", "namespace": "default", "uid": "u", "resourceVersion": "1", "annotations": kept,
        },
        "spec": {name: container("one") for name in components or ("predictor",)},
        "status": {},
    }  # fmt: skip
    return isvc


def container(version: str) -> Object:
    return {"containers": [{"name": "kserve-container", "image": f"example/model:{version}"}]}


class KServe:
    """What the cluster does with one InferenceService. Revisions become ready unless they are in `stuck`."""

    def __init__(self, isvc: Object) -> None:
        self.isvc = isvc
        self.made: dict[str, list[Object]] = {}
        self.stuck: set[str] = set()
        self.history: list[int] = []
        self.settle()

    @property
    def shares(self) -> dict[str, int]:
        """Traffic by revision, of the predictor."""
        found: dict[str, int] = {}
        for target in self.isvc["status"]["components"]["predictor"]["traffic"]:
            found[target["revisionName"]] = found.get(target["revisionName"], 0) + target["percent"]
        return found

    def settle(self) -> None:
        for name, spec in self.isvc["spec"].items():
            template = {key: value for key, value in spec.items() if key != "canaryTrafficPercent"}
            known = self.made.setdefault(name, [])
            if not known or known[-1] != template:
                known.append(copy.deepcopy(template))
            self._propagate(name, spec.get("canaryTrafficPercent"))
        self.history.append(self.shares.get(f"f-predictor-{len(self.made['predictor']):05d}", 0))

    def _propagate(self, name: str, percent: int | None) -> None:
        status = self.isvc["status"].setdefault("components", {}).setdefault(name, {})
        revisions = [f"f-{name}-{number:05d}" for number in range(1, len(self.made[name]) + 1)]
        status["latestCreatedRevision"] = revisions[-1]
        ready = [revision for revision in revisions if revision not in self.stuck][-1]
        rolled_out = status.get("latestRolledoutRevision")
        if percent is None or not rolled_out:
            percent = 100
        traffic = [{"revisionName": ready, "latestRevision": True, "percent": percent}]
        if percent < 100:
            traffic.append({"revisionName": rolled_out, "latestRevision": False, "percent": 100 - percent})
        status["traffic"], status["latestReadyRevision"] = traffic, ready
        if rolled_out != ready and percent == 100:
            status["previousRolledoutRevision"], status["latestRolledoutRevision"] = rolled_out, ready
        elif (
            rolled_out == ready == revisions[-1] and percent < 100 and status.get("previousRolledoutRevision")
        ):
            status["latestRolledoutRevision"] = status["previousRolledoutRevision"]

    def revision(self, name: str) -> Object | None:
        """As Knative has it: the template that it was made of."""
        component, number = name.split("-")[1:]
        made = self.made.get(component, ())
        if not 0 < int(number) <= len(made):
            return None
        template = copy.deepcopy(made[int(number) - 1])
        annotations = template.pop("annotations", {})
        for key in ("minReplicas", "labels", "logger"):
            template.pop(key, None)
        return {"metadata": {"name": name, "annotations": annotations}, "spec": template}

    def knative_services(self) -> list[Object]:
        return [
            {
                "metadata": {"name": f"f-{name}", "generation": 1, "labels": {names.COMPONENT_LABEL: name}},
                "spec": {
                    "traffic": [{"latestRevision": True, "percent": spec.get("canaryTrafficPercent", 100)}]
                },
                "status": {
                    "observedGeneration": 1,
                    "latestCreatedRevisionName": f"f-{name}-{len(self.made[name]):05d}",
                },
            }
            for name, spec in self.isvc["spec"].items()
        ]
