"""One value changed in a YAML file: everything else stays byte for byte, and what is not clear is refused."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glowplug_pipelines.deploying.errors import EditedMeanwhile, Unambiguous
from glowplug_pipelines.deploying.manifest import Target, current, edit

TARGET = Target("flights", "default", "predictor")
OLD, NEW = "s3://models/1", "s3://models/experiments/7/model"
MANIFEST = """\
# The flights model; do not touch the annotations.
apiVersion: v1
kind: ConfigMap
metadata: {name: flights}
data: {storageUri: "s3://models/1"}
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: flights        # of the year 2013
  annotations:
    glowplug.dev/rollout-steps: "10,50"
spec:
  predictor:
    minReplicas:   1   # odd spaces
    model:
      modelFormat: {name: xgboost}
      storageUri: s3://models/1   # moved by retraining
  transformer:
    containers:
      - image: glowplug/feature-lookup:0.1.0
"""


def changed(before: str, after: str) -> list[tuple[str, str]]:
    pairs = zip(before.split("\n"), after.split("\n"), strict=True)
    return [(was, now) for was, now in pairs if was != now]


@pytest.mark.parametrize("text", [MANIFEST, MANIFEST.replace("\n", "\r\n"), MANIFEST.rstrip("\n")])
def test_one_line_changes_and_its_comment_stays(text: str) -> None:
    after = edit(text, TARGET, OLD, NEW, "isvc.yaml")
    ((was, now),) = changed(text, after)
    assert was.replace(OLD, NEW) == now and "# moved by retraining" in now
    assert edit(after, TARGET, OLD, NEW, "isvc.yaml") == after, "again is the same"
    assert current(after, TARGET, "isvc.yaml") == NEW


@pytest.mark.parametrize("quoted", ['"s3://models/1"', "'s3://models/1'"])
def test_quotes_stay(quoted: str) -> None:
    text = MANIFEST.replace("s3://models/1   #", f"{quoted}   #")
    after = edit(text, TARGET, OLD, NEW, "isvc.yaml")
    assert f"storageUri: {quoted.replace(OLD, NEW)}   #" in after


def test_a_person_s_edit_in_between_is_a_conflict() -> None:
    with pytest.raises(EditedMeanwhile, match=r"isvc.yaml:18 .* is s3://models/1, expected s3://models/0"):
        edit(MANIFEST, TARGET, "s3://models/0", NEW, "isvc.yaml")
    assert NEW in edit(MANIFEST, TARGET, None, NEW, "isvc.yaml")


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("name: flights  ", "name: other  ", "no place for InferenceService flights"),
        ("kind: InferenceService", "kind: Patch", "no place"),
        ("    model:\n", "    storageUri: s3://models/1\n    model:\n", "2 places, on the lines 16, 19"),
        ("s3://models/1   #", "&uri s3://models/1 #", "has an anchor or a tag"),
        ("s3://models/1   # moved by retraining", "|\n        s3://models/1", "no text on one line"),
        ("s3://models/1   # moved by retraining", "{{ .Values.uri }}", "is no text on one line"),
        ("spec:\n", "spec: [\n", "is no YAML"),
        ("      storageUri: s3", "      storageUri: a\n      storageUri: s3", "2 places"),
        ("  name: flights  ", "  namespace: other\n  name: flights  ", "no place"),
    ],
)
def test_what_is_not_clear_is_refused(old: str, new: str, said: str) -> None:
    assert old in MANIFEST
    with pytest.raises(Unambiguous, match=r"isvc\.yaml") as caught:
        edit(MANIFEST.replace(old, new), TARGET, OLD, NEW, "isvc.yaml")
    assert said in caught.value.message


@settings(deadline=None)
@example("True")
@example("s3://models/a: b #c")
@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=30))
def test_whatever_the_value_is_it_reads_back_and_nothing_else_changes(value: str) -> None:
    try:
        after = edit(MANIFEST, TARGET, OLD, value, "isvc.yaml")
    except Unambiguous:
        # What YAML cannot hold on one line is refused, and such characters are in no address.
        assert not value.isascii()
        return
    _, isvc = yaml.safe_load_all(after)
    assert isvc["spec"]["predictor"]["model"]["storageUri"] == value
    assert len(changed(MANIFEST, after)) == (value != OLD)


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from([0, 60, 200, 300, 400]))
def test_a_manifest_that_is_broken_is_refused_or_read(noise: str, at: int) -> None:
    text = MANIFEST[:at] + noise + MANIFEST[at:]
    try:
        assert NEW in edit(text, TARGET, None, NEW, "isvc.yaml")
    except Unambiguous as error:
        assert error.message.startswith("isvc.yaml")
