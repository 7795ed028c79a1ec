"""What `demo retraining` writes into its machine: settings, ConfigMaps, the objects of eventing/, the service.

Values only: made of the shipped files, with the demo's own places and numbers in them. Nothing is applied here.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from glowplug.cli import demo, objects
from glowplug.errors import ConfigError
from glowplug.local.units import unit_folders
from glowplug.registry.models import RegistryConfig
from glowplug.spec import names
from glowplug_flights.retraining_demo import Plan
from glowplug_flights.workload import Flights
from glowplug_pipelines.settings import Settings, parse_settings

NAME, NAMESPACE = "flights", "default"
Object = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """Where everything of one demo is: its folder, the lookup transformer's, the registry, the offline tables."""

    root: pathlib.Path
    unit: pathlib.Path
    plan: Plan
    registry: RegistryConfig
    offline: str

    def settings(self, workload: str = "", rounds: int = 0) -> Settings:
        text = self._settings_text(workload, rounds or self.plan.rounds)
        return parse_settings(text, "the demo's settings", {})

    def _settings_text(self, workload: str, rounds: int) -> str:
        """pipelines/job/pipeline.yaml with the demo's own window, and no more to wait for between two runs.

        Paths are this computer's: where volumes are mounted is made true in arguments and variables, not in files.
        """
        shipped = yaml.safe_load((_shipped("pipelines") / "job/pipeline.yaml").read_text())
        return yaml.safe_dump(
            shipped
            | {
                "workload": workload or f"{Flights.__module__}:{Flights.__name__}",
                "workDir": str(self.root / "pipelines"),
                "offline": {"url": self.offline},
                "registry": {
                    "uri": self.registry.uri,
                    "artifacts": self.registry.artifacts,
                    "championProfile": self.registry.champion_profile,
                },
                "window": {**shipped["window"], **self.plan.window},
                "gate": {**shipped["gate"], **self.plan.gate},
                "options": {
                    **shipped["options"],
                    "rounds": rounds,
                    "featureView": str(self.unit / "feature_view.yaml"),
                },
                "triggering": {"coolDownMinutes": 0, "runsPerDay": 1000},
            }
        )

    def settings_map(self, workload: str = "") -> Object:
        text = self._settings_text(workload, self.plan.rounds)
        return demo._config_map("retrain-flights", {"pipeline.yaml": text})

    def config_maps(self, redis_url: str, feature_view: str) -> list[Object]:
        """Where the features are, and what they are."""
        return [
            demo._config_map("feature-store", {"REDIS_URL": redis_url}),
            demo._config_map("feature-views", {"feature_view.yaml": feature_view}),
        ]

    def eventing(self, door_url: str) -> Iterator[Object]:
        """eventing/local as it is, but for the door's address, the demo's settings, and the detector's numbers."""
        for document in objects.read_documents([], [_shipped("eventing") / "local"]):
            found, name = document.object, document.object["metadata"]["name"]
            if found["kind"] == "ConfigMap" and name == "events":
                found["data"]["K_SINK"] = door_url
            elif found["kind"] == "ConfigMap" and name == "retrain-flights":
                found = self.settings_map()
            elif found["kind"] == "Service" and name == "drift-detector":
                (container,) = found["spec"]["template"]["spec"]["containers"]
                container["env"] += [
                    {"name": f"GLOWPLUG_DRIFT_{key.upper()}", "value": value}
                    for key, value in {"reload_s": "0.5", **self.plan.drift}.items()
                ]
            yield found

    def service(self, storage_uri: str, door_url: str) -> Object:
        """The service in two components, so that the features are seen between them."""
        views = {"name": "feature-views", "mountPath": "/etc/glowplug/feature-views", "readOnly": True}
        lookup = {
            "name": "kserve-container",
            "image": "glowplug/feature-lookup:0.1.0",
            "args": [
                f"--model_name={NAME}", "--http_port=8080", "--predictor_protocol=v2", "--redis_timeout_s=10",
                "--feature_view=/etc/glowplug/feature-views/feature_view.yaml",
            ],
            "envFrom": [{"configMapRef": {"name": "feature-store"}}],
            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 8080}},
            "volumeMounts": [views],
        }  # fmt: skip
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": NAME,
                "namespace": NAMESPACE,
                "annotations": {
                    names.DEPLOYMENT_MODE: "Knative",
                    names.PAIR_LOCK: "true",
                    names.ROLLOUT_STEPS: "10,50,100",
                    names.ROLLOUT_INTERVAL: self.plan.interval,
                    names.ROLLOUT_GATES: self.plan.gates,
                },
            },
            "spec": {
                "predictor": {
                    "minReplicas": 1,
                    "maxReplicas": 1,
                    "model": {
                        "modelFormat": {"name": "xgboost"},
                        "protocolVersion": "v2",
                        "storageUri": storage_uri,
                    },
                    "logger": {
                        "mode": "all",
                        "url": door_url,
                        "metadataHeaders": ["Knative-Serving-Revision"],
                    },
                },
                "transformer": {
                    "minReplicas": 1,
                    "maxReplicas": 1,
                    "containers": [lookup],
                    "volumes": [{"name": "feature-views", "configMap": {"name": "feature-views"}}],
                },
            },
        }


def _shipped(unit: str) -> pathlib.Path:
    for folder in unit_folders():
        if folder.name == unit:
            return folder
    raise ConfigError(f"the folder {unit} is not here", hint="install glowplug anew")
