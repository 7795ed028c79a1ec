"""The pair lock's ids: what they depend on, where they are written, and what they leave alone."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from glowplug.errors import Invalid
from glowplug.spec import names, pairs

Object = dict[str, Any]


def isvc(**annotations: str) -> Object:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "flights",
            "namespace": "prod",
            "annotations": {"glowplug.dev/pair-lock": "true", **annotations},
        },
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "model": {
                    "modelFormat": {"name": "xgboost"},
                    "storageUri": "s3://models/flights/1",
                    "args": ["--a", "--b"],
                },
            },
            "transformer": {
                "containers": [
                    {
                        "name": "kserve-container",
                        "image": "lookup:1",
                        "env": [{"name": "REDIS_URL", "value": "redis://r"}],
                    }
                ]
            },
        },
    }


def stamped(obj: Object, old: Object | None = None) -> Object:
    found = pairs.stamp(obj, old)
    assert found is not None
    return found


def env_of(container: Object) -> dict[str, str]:
    return {item["name"]: item.get("value") for item in container.get("env", [])}


def predictor_env(obj: Object) -> dict[str, str]:
    return env_of(obj["spec"]["predictor"]["model"])


def transformer_env(obj: Object) -> dict[str, str]:
    return env_of(obj["spec"]["transformer"]["containers"][0])


def shuffled(value: Any, source: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        source.shuffle(keys)
        return {key: shuffled(value[key], source) for key in keys}
    return [shuffled(item, source) for item in value] if isinstance(value, list) else value


def test_both_components_get_the_same_id_and_the_transformer_its_own_address() -> None:
    before = isvc()
    kept = copy.deepcopy(before)
    after = stamped(before)
    assert before == kept, "the object that was given must not change"
    pair = predictor_env(after)["GLOWPLUG_PAIR"]
    assert pair.startswith("auto-")
    assert transformer_env(after) == {
        "REDIS_URL": "redis://r",
        "GLOWPLUG_PAIR": pair,
        "GLOWPLUG_TRANSFORMER_HOST": "flights-transformer.prod",
    }
    assert "GLOWPLUG_TRANSFORMER_HOST" not in predictor_env(after)
    assert after["metadata"]["annotations"]["serving.kserve.io/enable-tag-routing"] == "true"
    assert pairs.stamped_id(after) == pair


def test_stamping_again_changes_nothing() -> None:
    after = stamped(isvc())
    assert pairs.stamp(after) is None
    assert pairs.stamp(after, old=after) is None
    assert pairs.pair_id(after) == pairs.pair_id(isvc())


def test_the_id_does_not_depend_on_the_order_of_keys() -> None:
    source = random.Random(7)
    assert len({pairs.pair_id(shuffled(isvc(), source)) for _ in range(20)}) == 1


def test_what_is_empty_does_not_count() -> None:
    obj = isvc()
    obj["spec"]["predictor"]["model"].update(name="", resources={}, ports=[], runtime=None)
    assert pairs.pair_id(obj) == pairs.pair_id(isvc())


@pytest.mark.parametrize(
    ("component", "field", "value"),
    [
        ("predictor", "canaryTrafficPercent", 10),
        ("transformer", "canaryTrafficPercent", 10),
        ("predictor", "minReplicas", 0),
        ("transformer", "maxReplicas", 9),
        ("predictor", "scaleTarget", 3),
        ("predictor", "scaleMetric", "rps"),
    ],
)
def test_scale_and_traffic_keep_the_pair(component: str, field: str, value: Any) -> None:
    obj = stamped(isvc())
    obj["spec"][component][field] = value
    assert pairs.stamp(obj) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["predictor"]["model"].update(storageUri="s3://models/flights/2"),
        lambda spec: spec["predictor"]["model"]["args"].reverse(),
        lambda spec: spec["predictor"].update(timeout=3),
        lambda spec: spec["transformer"]["containers"][0].update(image="lookup:2"),
        lambda spec: spec["transformer"]["containers"][0]["env"].append({"name": "A", "value": "b"}),
    ],
)
def test_a_change_of_either_component_is_another_pair_of_both(change: Any) -> None:
    first = stamped(isvc())
    second = copy.deepcopy(first)
    change(second["spec"])
    second = stamped(second, old=first)
    assert predictor_env(second)["GLOWPLUG_PAIR"] != predictor_env(first)["GLOWPLUG_PAIR"]
    assert pairs.stamped_id(second) is not None


def test_going_back_is_the_same_pair_again() -> None:
    second = isvc()
    second["spec"]["predictor"]["model"]["storageUri"] = "s3://models/flights/2"
    assert pairs.stamped_id(stamped(isvc(), old=stamped(second))) == pairs.stamped_id(stamped(isvc()))


def test_a_stored_id_is_kept_as_long_as_nothing_changes() -> None:
    # As when the id was made before the API server filled in its defaults.
    old = json.loads(json.dumps(stamped(isvc())).replace(pairs.pair_id(isvc()), "auto-0123456789ab"))
    new = copy.deepcopy(old)
    new["spec"]["predictor"]["canaryTrafficPercent"] = 20
    assert pairs.stamp(new, old=old) is None
    new["spec"]["predictor"]["model"]["storageUri"] = "s3://models/flights/2"
    assert predictor_env(stamped(new, old=old))["GLOWPLUG_PAIR"] != "auto-0123456789ab"


@pytest.mark.parametrize("change", ["annotation", "transformer", "predictor"])
def test_without_the_annotation_or_a_component_nothing_is_stamped(change: str) -> None:
    obj = isvc()
    if change == "annotation":
        obj["metadata"]["annotations"]["glowplug.dev/pair-lock"] = "false"
    else:
        del obj["spec"][change]
    assert pairs.stamp(obj) is None
    assert not pairs.is_locked(obj)


def test_ids_go_when_the_lock_goes() -> None:
    obj = stamped(isvc())
    del obj["metadata"]["annotations"]["glowplug.dev/pair-lock"]
    after = stamped(obj)
    assert predictor_env(after) == {}
    assert "env" not in after["spec"]["predictor"]["model"]
    assert transformer_env(after) == {"REDIS_URL": "redis://r"}


def test_a_users_own_id_is_the_pairs() -> None:
    obj = isvc()
    obj["spec"]["predictor"]["model"]["env"] = [{"name": "GLOWPLUG_PAIR", "value": "v7"}]
    after = stamped(obj)
    assert pairs.stamped_id(after) == "v7"
    assert pairs.stamp(after) is None
    del after["metadata"]["annotations"]["glowplug.dev/pair-lock"]
    assert pairs.stamp(after) is None, "what the user wrote stays"


def test_users_ids_that_differ_are_refused() -> None:
    obj = isvc()
    obj["spec"]["predictor"]["model"]["env"] = [{"name": "GLOWPLUG_PAIR", "value": "v7"}]
    obj["spec"]["transformer"]["containers"][0]["env"] = [{"name": "GLOWPLUG_PAIR", "value": "v8"}]
    with pytest.raises(Invalid, match=r"v7.*v8"):
        pairs.stamp(obj)


def test_an_id_read_from_elsewhere_is_the_users_business() -> None:
    obj = isvc()
    source = {"configMapKeyRef": {"name": "pairs", "key": "id"}}
    obj["spec"]["predictor"]["model"]["env"] = [{"name": "GLOWPLUG_PAIR", "valueFrom": source}]
    after = stamped(obj)
    assert "GLOWPLUG_PAIR" not in transformer_env(after)
    assert after["spec"]["predictor"] == obj["spec"]["predictor"]


@pytest.mark.parametrize(
    ("predictor", "where"),
    [
        ({"xgboost": {"storageUri": "s3://m"}}, lambda p: p["xgboost"]),
        ({"containers": [{"image": "a"}]}, lambda p: p["containers"][0]),
        (
            {"containers": [{"name": "log", "image": "a"}, {"name": "kserve-container", "image": "b"}]},
            lambda p: p["containers"][1],
        ),
        (
            {"model": {"modelFormat": {"name": "onnx"}}, "containers": [{"name": "log"}]},
            lambda p: p["model"],
        ),
    ],
)
def test_the_container_that_takes_the_requests_is_stamped_and_no_other(predictor: Object, where: Any) -> None:
    obj = isvc()
    obj["spec"]["predictor"] = predictor
    after = stamped(obj)["spec"]["predictor"]
    assert env_of(where(after)).keys() == {"GLOWPLUG_PAIR"}
    assert json.dumps(after).count("GLOWPLUG_PAIR") == 1


def test_the_annotation_is_true_or_false() -> None:
    (problem,) = pairs.problems({names.PAIR_LOCK: "yes"})
    assert problem.field == f"metadata.annotations[{names.PAIR_LOCK}]" and '"yes"' in problem.message
    assert not list(pairs.problems({names.PAIR_LOCK: "true"})) and not list(pairs.problems({}))
