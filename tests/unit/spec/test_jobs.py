"""What is refused of a Job, and what it says where nothing is written."""

from __future__ import annotations

from typing import Any

import pytest

from glowplug.spec.jobs import default_job, validate_job, warnings, with_selector
from glowplug.spec.validation import Object


def job(pod: Object | None = None, **spec: Any) -> Object:
    pod = {"restartPolicy": "Never", "containers": [{"name": "a"}]} if pod is None else pod
    return {"metadata": {"name": "train"}, "spec": {"template": {"spec": pod}, **spec}}


def problems(obj: Object, old: Object | None = None) -> list[str]:
    return [f"{each.field}: {each.message}" for each in validate_job(default_job(obj), old)]


def test_defaults_are_those_of_kubernetes() -> None:
    spec = default_job(job())["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 6)
    assert spec["completionMode"] == "NonIndexed" and spec["suspend"] is False
    assert "completions" not in default_job(job(parallelism=3))["spec"]
    assert default_job(job(completions=3))["spec"]["parallelism"] == 1
    assert default_job(job(backoffLimit=0, parallelism=0))["spec"]["backoffLimit"] == 0


def test_a_new_job_selects_its_own_pods() -> None:
    made = with_selector({"metadata": {"name": "train", "uid": "u-1"}, "spec": job()["spec"]})
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert made["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels["batch.kubernetes.io/job-name"] == labels["job-name"] == "train"


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (job({"containers": [{"name": "a"}]}), "spec.template.spec.restartPolicy: Required value"),
        (job({"restartPolicy": "Always", "containers": [{"name": "a"}]}), 'restartPolicy: Unsupported value: "Always"'),
        (job({"restartPolicy": "Never"}), "spec.template.spec.containers: Required value"),
        (job(backoffLimit=-1), "spec.backoffLimit: Invalid value: -1"),
        (job(activeDeadlineSeconds=-1), "spec.activeDeadlineSeconds: Invalid value: -1"),
        (job(completionMode="Indexed"), 'spec.completionMode: Unsupported value: "Indexed"'),
        (job(successPolicy={"rules": [{}]}), "spec.successPolicy: Forbidden"),
        (job(selector={"matchLabels": {"a": "b"}}), "spec.selector: Invalid value"),
        ({**job(), "metadata": {"name": "x" * 64}}, "metadata.name: Invalid value"),
        (
            job({"restartPolicy": "Never", "containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}),
            "spec.template.spec.initContainers: Forbidden",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(obj: Object, said: str) -> None:
    found = problems(obj)
    assert len(found) == 1 and said in found[0], found


def test_a_jobs_template_stays_and_its_parallelism_may_change() -> None:
    old = default_job(job())
    assert problems(job(parallelism=2, completions=1), old) == []
    changed = problems(job({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]}), old)
    assert changed == ['spec.template: Invalid value: "…": field is immutable']


def test_what_has_no_effect_is_a_warning() -> None:
    policy = {"rules": [{"action": "Ignore"}]}
    (warning,) = warnings(job(podFailurePolicy=policy))
    assert "podFailurePolicy" in warning and not problems(job(podFailurePolicy=policy))
    pod = {"restartPolicy": "Never", "containers": [{"name": "a"}], "nodeSelector": {"a": "b"}}
    assert "nodeSelector" in warnings(job(pod))[0]
