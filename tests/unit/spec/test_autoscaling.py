from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec import autoscaling
from glowplug.spec.autoscaling import GROUP as G
from glowplug.spec.autoscaling import RevisionScaling, scaling_of


def test_a_revision_that_says_nothing() -> None:
    assert scaling_of({}) == RevisionScaling()
    assert RevisionScaling().metric == "concurrency"


def test_what_a_revision_can_say() -> None:
    found = scaling_of(
        {
            f"{G}/metric": "rps", f"{G}/target": "1.5", f"{G}/window": "90s", f"{G}/activation-scale": "2",
            f"{G}/minScale": "1", f"{G}/max-scale": "9", f"{G}/initial-scale": "0", f"{G}/scaleDownDelay": "5s",
            f"{G}/scale-to-zero-pod-retention-period": "1m", f"{G}/metricAggregationAlgorithm": "weightedExponential",
            f"{G}/target-utilization-percentage": "80", f"{G}/targetBurstCapacity": "-1",
            f"{G}/panic-window-percentage": "20", f"{G}/panicThresholdPercentage": "150",
            "serving.knative.dev/progress-deadline": "30s",
        }
    )  # fmt: skip
    assert found == RevisionScaling(
        autoscaler_class=autoscaling.KPA, metric="rps", target=1.5, window_ns=90 * 10**9, activation_scale=2,
        min_scale=1, max_scale=9, initial_scale=0, scale_down_delay_ns=5 * 10**9, pod_retention_ns=60 * 10**9,
        aggregation="weighted-exponential", utilization_percentage=80, burst_capacity=-1, panic_window_percentage=20,
        panic_threshold_percentage=150, progress_deadline_ns=30 * 10**9,
    )  # fmt: skip


def test_the_present_spelling_wins_even_when_it_cannot_be_read() -> None:
    assert scaling_of({f"{G}/min-scale": "1", f"{G}/minScale": "2"}).min_scale == 1
    assert scaling_of({f"{G}/min-scale": "x", f"{G}/minScale": "2"}).min_scale is None


def test_the_class_decides_the_metric() -> None:
    assert scaling_of({f"{G}/class": autoscaling.HPA}).metric == "cpu"
    assert scaling_of({f"{G}/class": "mine"}).metric == ""


@given(st.dictionaries(st.sampled_from([a.key for a in autoscaling.ALL]), st.text(max_size=8)))
def test_any_text_is_read(annotations: dict[str, str]) -> None:
    found = scaling_of(annotations)
    assert found.min_scale is None or isinstance(found.min_scale, int)
