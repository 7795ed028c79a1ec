"""What a pipeline is told: one YAML file, every default here, a few places by environment variables.

    model: flights
    workload: glowplug_flights.workload:Flights
    offline: {url: .glowplug/offline}
    registry: {uri: "sqlite:///.glowplug/mlflow/mlflow.db", artifacts: .glowplug/mlflow/artifacts}

The environment wins over the file where a cluster knows better: GLOWPLUG_OFFLINE_URL, MLFLOW_TRACKING_URI,
GLOWPLUG_REGISTRY_ARTIFACTS, GLOWPLUG_CHAMPION_PROFILE, GLOWPLUG_PIPELINES_WORK_DIR, GLOWPLUG_NAMESPACE. Relative paths
are relative to where the command runs.
`triggering` and `deploying` are read by the packages of those names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from glowplug.registry.models import RegistryConfig
from glowplug_pipelines.sections import Section, read_text

OFFLINE_URL = "GLOWPLUG_OFFLINE_URL"
REGISTRY_URI = "MLFLOW_TRACKING_URI"
REGISTRY_ARTIFACTS = "GLOWPLUG_REGISTRY_ARTIFACTS"
CHAMPION_PROFILE = "GLOWPLUG_CHAMPION_PROFILE"
WORK_DIR = "GLOWPLUG_PIPELINES_WORK_DIR"
NAMESPACE = "GLOWPLUG_NAMESPACE"
_NOWHERE = "-"
# It becomes part of names of objects, `retrain-<model>` among them.
_MODEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_WORKLOAD = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Span:
    """A stretch of time: start <= moment < stop, both aware."""

    start: datetime
    stop: datetime

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} to {self.stop:%Y-%m-%d %H:%M}"


@dataclass(frozen=True)
class WindowSettings:
    """How the time before a moment is cut: | training | gap | held out | moment.

    `validation_days`, the end of training's, is for early stopping. `gap_hours` is as long as labels take to be
    known: a label of training that becomes known while the held-out rows happen would tell of them.
    """

    days: float = 90.0
    holdout_days: float = 14.0
    validation_days: float = 7.0
    gap_hours: float = 24.0
    min_training_rows: int = 1000
    min_holdout_rows: int = 500
    min_labelled_share: float = 0.5

    def before(self, moment: datetime) -> Span:
        """The whole window, held-out time included, that ends at `moment`."""
        return Span(moment - timedelta(days=self.days), moment)


@dataclass(frozen=True)
class GateSettings:
    """What a challenger must show; the decisions are in `glowplug_pipelines.gate`.

    `alpha` is the risk of each kind of proof, and `day_correlation` how alike the differences of two days in a row are
    taken to be (in a year of flights, 0 to 0.3 within two weeks); `min_improvement_percent` of the reference's loss; a
    slice of at least `slice_min_rows` rows regresses where it is proven to lose more than `slice_tolerance_percent`;
    `max_bias` in the label's unit, 0 leaves it out, as it does for the latency and size budgets.
    """

    alpha: float = 0.05
    min_improvement_percent: float = 0.0
    min_days: int = 5
    day_correlation: float = 0.2
    resamples: int = 4000
    slice_min_rows: int = 100
    slice_tolerance_percent: float = 5.0
    max_bias: float = 0.0
    max_latency_ms: float = 0.0
    max_latency_ratio: float = 3.0
    max_size_mb: float = 0.0


@dataclass(frozen=True)
class Settings:
    """One pipeline. `options` are the workload's own; `triggering` and `deploying` are not read here."""

    model: str
    workload: str
    offline_url: str
    registry: RegistryConfig
    work_dir: Path = Path(".glowplug/pipelines")
    namespace: str = "default"
    window: WindowSettings = field(default_factory=WindowSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    options: Mapping[str, Any] = field(default_factory=dict)
    triggering: Mapping[str, Any] = field(default_factory=dict)
    deploying: Mapping[str, Any] = field(default_factory=dict)


def read_settings(path: Path, environment: Mapping[str, str]) -> Settings:
    """The settings of a file. Raises `ConfigError`: cannot be read, or all that is wrong with it."""
    return parse_settings(read_text(path), str(path), environment)


def parse_settings(text: str, source: str, environment: Mapping[str, str]) -> Settings:
    """Raises `ConfigError` with every problem at once, each with its line."""
    whole = Section.of(text, source)
    model, workload = whole.text("model"), whole.text("workload")
    if not _MODEL.fullmatch(model):
        whole.problem("model", f"= {model!r}, must be lower-case letters, digits and -, up to 40")
    if not _WORKLOAD.fullmatch(workload):
        whole.problem("workload", f"= {workload!r}, must be module:Class")
    offline = environment.get(OFFLINE_URL) or whole.section("offline").text("url", ".glowplug/offline")
    whole.section("offline").text("url", "-")
    work_dir, namespace = whole.text("workDir", ".glowplug/pipelines"), whole.text("namespace", "default")
    settings = Settings(
        model=model,
        workload=workload,
        offline_url=offline,
        registry=_registry(whole.section("registry"), environment),
        work_dir=Path(environment.get(WORK_DIR) or work_dir),
        namespace=environment.get(NAMESPACE) or namespace,
        window=_window(whole.section("window")),
        gate=_gate(whole.section("gate")),
        options=whole.mapping("options"),
        triggering=whole.mapping("triggering"),
        deploying=whole.mapping("deploying"),
    )
    whole.finish()
    return settings


def _registry(section: Section, environment: Mapping[str, str]) -> RegistryConfig:
    local = Path(".glowplug/mlflow").resolve()
    uri = section.text("uri", f"sqlite:///{local / 'mlflow.db'}")
    artifacts = section.text("artifacts", str(local / "artifacts"))
    profile = section.text("championProfile", _NOWHERE)
    uri = environment.get(REGISTRY_URI) or uri
    artifacts = environment.get(REGISTRY_ARTIFACTS) or artifacts
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
    if "://" not in artifacts and not artifacts.startswith("mlflow-artifacts:"):
        artifacts = Path(artifacts).resolve().as_uri()
    profile = environment.get(CHAMPION_PROFILE) or ("" if profile == _NOWHERE else profile)
    return RegistryConfig(uri, artifacts, profile)


def _window(section: Section) -> WindowSettings:
    default = WindowSettings()
    window = WindowSettings(
        days=section.number("days", default.days, above=0),
        holdout_days=section.number("holdoutDays", default.holdout_days, above=0),
        validation_days=section.number("validationDays", default.validation_days, above=0),
        gap_hours=section.number("gapHours", default.gap_hours, at_least=0),
        min_training_rows=section.whole("minTrainingRows", default.min_training_rows, at_least=2),
        min_holdout_rows=section.whole("minHoldoutRows", default.min_holdout_rows, at_least=2),
        min_labelled_share=section.number(
            "minLabelledShare", default.min_labelled_share, at_least=0, below=1.0001
        ),
    )
    needed = window.holdout_days + window.validation_days + window.gap_hours / 24
    if window.days <= needed:
        section.problem(
            "days", f"= {window.days:g}, must be more than {needed:g}: what is held out, validated, between"
        )
    return window


def _gate(section: Section) -> GateSettings:
    default = GateSettings()
    return GateSettings(
        alpha=section.number("alpha", default.alpha, above=0, below=0.5),
        min_improvement_percent=section.number(
            "minImprovementPercent", default.min_improvement_percent, at_least=0
        ),
        min_days=section.whole("minDays", default.min_days, at_least=2),
        day_correlation=section.number("dayCorrelation", default.day_correlation, at_least=0, below=0.9),
        resamples=section.whole("resamples", default.resamples, at_least=200),
        slice_min_rows=section.whole("sliceMinRows", default.slice_min_rows, at_least=2),
        slice_tolerance_percent=section.number(
            "sliceTolerancePercent", default.slice_tolerance_percent, at_least=0
        ),
        max_bias=section.number("maxBias", default.max_bias, at_least=0),
        max_latency_ms=section.number("maxLatencyMs", default.max_latency_ms, at_least=0),
        max_latency_ratio=section.number("maxLatencyRatio", default.max_latency_ratio, at_least=0),
        max_size_mb=section.number("maxSizeMb", default.max_size_mb, at_least=0),
    )
