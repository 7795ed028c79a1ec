"""Knative's `config-autoscaler` ConfigMap: its keys, defaults and bounds, and its own words for what is wrong.

Source: knative.dev/serving pkg/autoscaler/config/config.go, version 0.48. Knative names the first problem only; here
all of them are found, Knative's first one first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields

from glowplug.errors import ConfigError
from glowplug.spec import autoscaling
from glowplug.spec.gonumbers import (
    SECOND_NS,
    GoValueError,
    duration_text,
    fixed_text,
    float_text,
    parse_bool,
    parse_duration,
    parse_float,
    parse_int,
    quoted,
)

CONFIG_MAP = "config-autoscaler"
NAMESPACE = "knative-serving"

Value = bool | int | float | str
_Parse = Callable[[str], Value]


def _key(key: str, parse: _Parse, default: Value) -> Value:
    """A field that the ConfigMap's `key` sets, a text that `parse` reads."""
    found: Value = field(default=default, metadata={"key": key, "parse": parse})
    return found


def _bool(key: str, default: bool) -> bool:
    return _key(key, parse_bool, default)  # type: ignore[return-value]


def _float(key: str, default: float) -> float:
    return _key(key, parse_float, default)  # type: ignore[return-value]


def _int32(key: str, default: int) -> int:
    return _key(key, parse_int, default)  # type: ignore[return-value]


def _duration(key: str, default_s: int) -> int:
    return _key(key, parse_duration, default_s * SECOND_NS)  # type: ignore[return-value]


def _text(key: str, default: str) -> str:
    return _key(key, str.strip, default)  # type: ignore[return-value]


@dataclass(frozen=True)
class AutoscalerConfig:
    """The autoscaler's settings, with Knative's defaults, in the order in which Knative reads them.

    Durations are nanoseconds. `container_concurrency_target_fraction` is the ConfigMap's percentage as a fraction;
    `target_utilization` is its counterpart for other metrics, which no key sets. A `max_scale` or `max_scale_limit`
    of 0 is no limit, a `target_burst_capacity` of -1 keeps the activator in the path always.
    """

    pod_autoscaler_class: str = _text("pod-autoscaler-class", autoscaling.KPA)
    enable_scale_to_zero: bool = _bool("enable-scale-to-zero", True)
    allow_zero_initial_scale: bool = _bool("allow-zero-initial-scale", False)
    max_scale_up_rate: float = _float("max-scale-up-rate", 1000.0)
    max_scale_down_rate: float = _float("max-scale-down-rate", 2.0)
    container_concurrency_target_fraction: float = _float("container-concurrency-target-percentage", 0.7)
    container_concurrency_target_default: float = _float("container-concurrency-target-default", 100.0)
    rps_target_default: float = _float("requests-per-second-target-default", 200.0)
    target_burst_capacity: float = _float("target-burst-capacity", 211.0)
    panic_window_percentage: float = _float("panic-window-percentage", 10.0)
    activator_capacity: float = _float("activator-capacity", 100.0)
    panic_threshold_percentage: float = _float("panic-threshold-percentage", 200.0)
    initial_scale: int = _int32("initial-scale", 1)
    min_scale: int = _int32("min-scale", 0)
    max_scale: int = _int32("max-scale", 0)
    max_scale_limit: int = _int32("max-scale-limit", 0)
    stable_window_ns: int = _duration("stable-window", 60)
    scale_down_delay_ns: int = _duration("scale-down-delay", 0)
    scale_to_zero_grace_period_ns: int = _duration("scale-to-zero-grace-period", 30)
    scale_to_zero_pod_retention_period_ns: int = _duration("scale-to-zero-pod-retention-period", 0)
    target_utilization: float = 0.7


DEFAULTS = AutoscalerConfig()
KEYS = tuple(spec.metadata["key"] for spec in fields(AutoscalerConfig) if spec.metadata)


def parse(data: Mapping[str, str]) -> AutoscalerConfig:
    """The settings that a ConfigMap's `data` means; keys that Knative does not know are ignored, as it does.

    Raises ConfigError with all problems, a line each.
    """
    config, problems = read(data)
    if problems:
        raise ConfigError(
            "\n".join(problems), hint=f"see the ConfigMap {CONFIG_MAP} in namespace {NAMESPACE}"
        )
    return config


def read(data: Mapping[str, str]) -> tuple[AutoscalerConfig, list[str]]:
    """The settings and what is wrong with them; a value that cannot be read counts as absent."""
    values: dict[str, Value] = {}
    problems: list[str] = []
    for spec in fields(AutoscalerConfig):
        key: str = spec.metadata.get("key", "")
        if key not in data:
            continue
        try:
            values[spec.name] = spec.metadata["parse"](data[key])
        except GoValueError as error:
            problems.append(f"failed to parse data: failed to parse {quoted(key)}: {error}")
    fraction = values.get("container_concurrency_target_fraction")
    if isinstance(fraction, float) and fraction > 1.0:
        # Knative takes both 70 and 0.7 for 70 %.
        values["container_concurrency_target_fraction"] = fraction / 100.0
    config = AutoscalerConfig(**values)  # type: ignore[arg-type]
    return config, problems or list(_problems(config))


def _problems(config: AutoscalerConfig) -> Iterator[str]:
    """What Knative refuses, in its order. Comparisons are its own too: NaN passes them."""
    yield from _scale_down_problems(config)
    yield from _target_problems(config)
    yield from _rate_problems(config)
    yield from _window_problems(config)
    yield from _scale_problems(config)


def _scale_down_problems(config: AutoscalerConfig) -> Iterator[str]:
    grace, delay = config.scale_to_zero_grace_period_ns, config.scale_down_delay_ns
    retention, burst = config.scale_to_zero_pod_retention_period_ns, config.target_burst_capacity
    if grace <= 0:
        yield f"scale-to-zero-grace-period must be positive, was: {duration_text(grace)}"
    if delay < 0:
        yield f"scale-down-delay cannot be negative, was: {duration_text(delay)}"
    if delay % SECOND_NS:
        yield f"scale-down-delay = {duration_text(delay)}, must be specified with at most second precision"
    if retention < 0:
        yield f"scale-to-zero-pod-retention-period cannot be negative, was: {duration_text(retention)}"
    if burst < 0 and burst != -1:
        was = fixed_text(burst)
        yield f"target-burst-capacity must be either non-negative or -1 (for unlimited), was: {was}"


def _target_problems(config: AutoscalerConfig) -> Iterator[str]:
    fraction, least = config.container_concurrency_target_fraction, float_text(autoscaling.TARGET_MIN)
    if fraction <= 0 or fraction > 1:
        found = fixed_text(fraction)
        yield f"container-concurrency-target-percentage = {found} is outside of valid range of (0, 100]"
    target = fraction * config.container_concurrency_target_default
    if target < autoscaling.TARGET_MIN:
        yield (
            "container-concurrency-target-percentage and container-concurrency-target-default yield target "
            f"concurrency of {float_text(target)}, can't be less than {least}"
        )
    if config.rps_target_default < autoscaling.TARGET_MIN:
        was = float_text(config.rps_target_default)
        yield f"requests-per-second-target-default must be at least {least}, was: {was}"
    if config.activator_capacity < 1:
        yield f"activator-capacity = {float_text(config.activator_capacity)}, must be at least 1"


def _rate_problems(config: AutoscalerConfig) -> Iterator[str]:
    if config.max_scale_up_rate <= 1.0:
        yield f"max-scale-up-rate = {float_text(config.max_scale_up_rate)}, must be greater than 1.0"
    if config.max_scale_down_rate <= 1.0:
        yield f"max-scale-down-rate = {float_text(config.max_scale_down_rate)}, must be greater than 1.0"


def _window_problems(config: AutoscalerConfig) -> Iterator[str]:
    window, shown = config.stable_window_ns, duration_text(config.stable_window_ns)
    lower, upper = autoscaling.WINDOW_MIN_NS, autoscaling.WINDOW_MAX_NS
    if not lower <= window <= upper:
        yield f"stable-window = {shown}, must be in [{duration_text(lower)}; {duration_text(upper)}] range"
    if window % SECOND_NS:
        yield f"stable-window = {shown}, must be specified with at most second precision"
    least, most = autoscaling.PANIC_WINDOW_PERCENTAGE
    percentage = config.panic_window_percentage
    if percentage < least or percentage > most:
        bounds = f"[{float_text(least)}, {float_text(most)}]"
        yield f"panic-window-percentage = {float_text(percentage)}, must be in {bounds} interval"


def _scale_problems(config: AutoscalerConfig) -> Iterator[str]:
    initial, low, high, limit = (
        config.initial_scale, config.min_scale, config.max_scale, config.max_scale_limit,
    )  # fmt: skip
    if initial < 0 or (initial == 0 and not config.allow_zero_initial_scale):
        why = "must be at least 0 (or at least 1 when allow-zero-initial-scale is false)"
        yield f"initial-scale = {initial}, {why}"
    if low < 0:
        yield f"min-scale = {low}, must be at least 0"
    # Where there is a limit, the default has to be within it: 0 would be no bound.
    least = 1 if limit > 0 else 0
    if high < least or 0 < limit < high:
        yield f"max-scale = {high}, must be in [{least}, max-scale-limit({limit})] range"
    if limit < 0:
        yield f"max-scale-limit = {limit}, must be at least 0"
    if low > high > 0:
        yield f"min-scale ({low}) must be less than max-scale ({high})"
