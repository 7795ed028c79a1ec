"""The lookup as it runs in a pod: its real server before the real XGBoost server, on a real Redis."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import xgboost
from unit.features.lab import Unit, small_view, to_yaml, wait_until

from glowplug.features.online import OnlineConfig, connect
from glowplug.features.online_writer import Job, RowBatch, write
from glowplug.features.redis_server import RedisServer, start_redis
from glowplug.features.resolve import Report
from glowplug.features.view import FeatureView, OnMissing, OnStale
from glowplug.serving import PredictorClient, PredictorConfig
from glowplug.wire import InferRequest, Tensor

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIEW = small_view(on_missing=OnMissing.DEFAULT, on_stale=OnStale.DEFAULT, ttl_s=3600.0)
NULLS = small_view(on_missing=OnMissing.NULL, on_stale=OnStale.USE, ttl_s=3600.0)
ERRORS = small_view(on_missing=OnMissing.ERROR, on_stale=OnStale.ERROR, ttl_s=3600.0)
STALE_USER = 3
UNKNOWN_USER = 15
HOUR_MS = 3_600_000


@dataclass
class Pod:
    """A lookup and what stands behind it."""

    lookup: Unit
    predictor: Unit
    redis: RedisServer
    booster: xgboost.Booster

    def expected(self, *rows: tuple[float, float, float]) -> list[float]:
        values: list[float] = self.booster.inplace_predict(np.array(rows, np.float32)).tolist()
        return values


def train(folder: Path, view: FeatureView, accepts_missing: bool) -> xgboost.Booster:
    """A small model with the view's features; `folder` is then what a pod gets as /mnt/models."""
    rows = np.random.default_rng(7).normal(size=(400, len(view.features))).astype(np.float32) * 20
    data = xgboost.DMatrix(rows, rows.sum(axis=1), feature_names=list(view.feature_names), nthread=1)
    booster = xgboost.train({"nthread": 1, "max_depth": 3}, data, 20)
    if accepts_missing:
        booster.set_attr(glowplug_accepts_missing="true")
    folder.mkdir()
    booster.save_model(folder / "model.ubj")
    (folder / "feature_view.yaml").write_text(to_yaml(view))
    return booster


async def fill(url: str, view: FeatureView) -> None:
    """Users 0..9 with (10 i, i), user 3's row two hours old; pairs (i, "s") with i visits for i in 0..19."""
    client = connect(OnlineConfig(url))
    now_ms = int(time.time() * 1000)
    user, pair = view.groups
    ids = np.arange(10)
    event_ms = np.where(ids == STALE_USER, now_ms - 2 * HOUR_MS, now_ms)
    values = np.stack([10 * ids, ids], axis=1).astype(np.float32)
    await write(
        client,
        view,
        user,
        Job("test", 10, now_ms),
        one(RowBatch([[str(each) for each in ids]], event_ms, values)),
    )
    ids = np.arange(20)
    keys = [[str(each) for each in ids], ["s"] * 20]
    rows = RowBatch(keys, np.full(20, now_ms), ids[:, None].astype(np.float32))
    await write(client, view, pair, Job("test", 20, now_ms), one(rows))
    await client.aclose()


async def one(batch: RowBatch) -> AsyncIterator[RowBatch]:
    yield batch


@asynccontextmanager
async def running(
    tmp_path: Path, view: FeatureView, *, protocol: str = "grpc-v2", accepts_missing: bool = False
) -> AsyncIterator[Pod]:
    models = tmp_path / "models"
    booster = train(models, view, accepts_missing)
    view_file = tmp_path / "view.yaml"
    view_file.write_text(to_yaml(view))
    async with start_redis(tmp_path / "redis") as redis:
        await fill(redis.url, view)
        predictor = Unit(
            tmp_path / "predictor.log", "glowplug_xgboost", ["--model_name=shops", f"--model_dir={models}"]
        )
        port = predictor.grpc_port if protocol == "grpc-v2" else predictor.http_port
        lookup = Unit(
            tmp_path / "lookup.log",
            "glowplug_feature_lookup",
            [
                "--model_name=shops",
                f"--model_dir={models}",
                f"--feature_view={view_file}",
                f"--predictor_host=127.0.0.1:{port}",
                f"--predictor_protocol={protocol}",
                "--enable_predictor_health_check",
            ],
            {"REDIS_URL": redis.url},
        )
        try:
            lookup.wait_ready()
            yield Pod(lookup, predictor, redis, booster)
        finally:
            lookup.stop()
            predictor.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pod]:
    """One pod for all tests that leave it as it is. Missing and stale users get defaults."""
    async with running(tmp_path_factory.mktemp("pod"), VIEW) as pod:
        yield pod


def body(users: list[int], shop: str = "s", tail: tuple[int, ...] = ()) -> dict[str, Any]:
    shape = [len(users), *tail]
    return {
        "inputs": [
            {"name": "user_id", "datatype": "INT64", "shape": shape, "data": users},
            {"name": "shop", "datatype": "BYTES", "shape": shape, "data": [shop] * len(users)},
        ]
    }


def request(users: list[int], shop: str = "s") -> InferRequest:
    ids = Tensor("user_id", "INT64", (len(users),), np.array(users, np.int64))
    return InferRequest("shops", (ids, Tensor.from_strings("shop", [shop] * len(users))), id="q1")


async def test_rest(pod: Pod) -> None:
    status, answer = pod.lookup.infer({**body([1, 2], tail=(1,)), "id": "42"}, "shops")
    assert status == 200, answer
    assert (answer["id"], answer["model_name"]) == ("42", "shops")
    (output,) = answer["outputs"]
    assert (output["name"], output["shape"]) == ("predict", [2])
    assert output["data"] == pytest.approx(pod.expected((10, 1, 1), (20, 2, 2)))
    assert answer["parameters"] == dict.fromkeys(Report(()).parameters(), 0)


async def test_grpc(pod: Pod) -> None:
    client = PredictorClient(PredictorConfig(f"127.0.0.1:{pod.lookup.grpc_port}"))
    answer = await client.infer(request([4, UNKNOWN_USER]))
    await client.aclose()
    assert answer.id == "q1"
    assert answer.output("predict").as_numpy().tolist() == pod.expected((40, 4, 4), (30, -1, UNKNOWN_USER))
    assert answer.parameters["feature_missing"] == 1
    assert answer.parameters["feature_missing_groups"] == "user=1"


async def test_stale_rows_get_defaults_and_are_reported(pod: Pod) -> None:
    status, answer = pod.lookup.infer(body([STALE_USER, 5]), "shops")
    assert status == 200
    assert answer["outputs"][0]["data"] == pytest.approx(pod.expected((30, -1, STALE_USER), (50, 5, 5)))
    parameters = answer["parameters"]
    assert (parameters["feature_stale"], parameters["feature_defaulted_rows"]) == (1, 1)
    assert parameters["feature_stale_groups"] == "user=1"
    assert (
        'glowplug_feature_fallbacks_total{group="user",outcome="stale"}'
        in pod.lookup.get("/metrics")[1].decode()
    )
    assert "user stale: " in pod.lookup.output()


async def test_a_batch_is_one_round_trip(pod: Pod) -> None:
    client = connect(OnlineConfig(pod.redis.url))
    pod.lookup.infer(body([1]), "shops")
    before = (await client.info("commandstats"))["cmdstat_mget"]["calls"]
    status, answer = pod.lookup.infer(body([1, 2, 3, 4, 5] * 200), "shops")
    after = (await client.info("commandstats"))["cmdstat_mget"]["calls"]
    await client.aclose()
    assert (status, answer["outputs"][0]["shape"]) == (200, [1000])
    assert after - before == 1


async def test_rows_reach_the_model_bit_for_bit(pod: Pod) -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 2**32, size=(200, 2), dtype=np.uint32).view(np.float32)
    values = values[np.isfinite(values).all(axis=1)]
    ids = np.arange(1000, 1000 + len(values))
    texts = [str(each) for each in ids]
    user, pair = VIEW.groups
    now = np.full(len(ids), int(time.time() * 1000))
    client = connect(OnlineConfig(pod.redis.url))
    await write(client, VIEW, user, Job("bits", len(ids), 1), one(RowBatch([texts], now, values)))
    visits = np.zeros_like(values[:, :1])
    await write(
        client, VIEW, pair, Job("bits", len(ids), 1), one(RowBatch([texts, ["s"] * len(ids)], now, visits))
    )
    await client.aclose()
    status, answer = pod.lookup.infer(body(ids.tolist()), "shops")
    assert status == 200
    sent = np.concatenate([values, visits], axis=1)
    assert np.array_equal(
        np.array(answer["outputs"][0]["data"], np.float32), pod.booster.inplace_predict(sent)
    )


async def test_no_rows(pod: Pod) -> None:
    status, answer = pod.lookup.infer(body([]), "shops")
    assert (status, answer["outputs"][0]["shape"]) == (200, [0])


async def test_bad_requests_are_400(pod: Pod) -> None:
    for bad, expected in (
        (
            body([1], shop="elsewhere"),
            "feature group pair (user_id, shop): 1 of 1 entities have no row: 1, elsewhere",
        ),
        ({"inputs": body([1])["inputs"][:1]}, "input 'shop' is missing"),
        ({"inputs": []}, "input 'user_id' is missing"),
    ):
        status, answer = pod.lookup.infer(bad, "shops")
        assert status == 400
        assert expected in answer["error"]


async def test_metadata_declare_the_entities(pod: Pod) -> None:
    status, answer = pod.lookup.get("/v2/models/shops")
    assert status == 200
    inputs = json.loads(answer)["inputs"]
    assert [(each["name"], each["datatype"]) for each in inputs] == [("user_id", "INT64"), ("shop", "BYTES")]


async def test_v1(pod: Pod) -> None:
    status, answer = pod.lookup.post("/v1/models/shops:predict", {"instances": [{"user_id": 6, "shop": "s"}]})
    assert status == 200, answer
    assert answer["predictions"] == pytest.approx(pod.expected((60, 6, 6)))


async def test_null_and_use_over_rest_to_the_predictor(tmp_path: Path) -> None:
    async with running(tmp_path, NULLS, protocol="v2", accepts_missing=True) as pod:
        status, answer = pod.lookup.infer(body([STALE_USER, UNKNOWN_USER]), "shops")
        assert status == 200, answer
        nan = float("nan")
        assert answer["outputs"][0]["data"] == pytest.approx(
            pod.expected((10 * STALE_USER, STALE_USER, STALE_USER), (nan, nan, UNKNOWN_USER))
        )
        parameters = answer["parameters"]
        assert (parameters["feature_null_rows"], parameters["feature_stale_used"]) == (1, 1)


async def test_errors_redis_and_predictor_away(tmp_path: Path) -> None:
    async with running(tmp_path, ERRORS) as pod:
        status, answer = pod.lookup.infer(body([UNKNOWN_USER]), "shops")
        assert (status, "1 of 1 entities have no row: 15" in answer["error"]) == (400, True)
        status, answer = pod.lookup.infer(body([STALE_USER]), "shops")
        assert (status, "a row older than its ttl of 3600 s: 3" in answer["error"]) == (503, True)

        os.kill(pod.redis.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        status, answer = pod.lookup.infer(body([1]), "shops")
        os.kill(pod.redis.process.pid, signal.SIGCONT)
        assert (status, "did not answer in 0.5 s" in answer["error"]) == (503, True)
        assert time.monotonic() - started < 2
        assert pod.lookup.infer(body([1]), "shops")[0] == 200

        pod.redis.process.kill()
        await pod.redis.process.wait()
        status, answer = pod.lookup.infer(body([1]), "shops")
        assert (status, "the feature store at unix://" in answer["error"]) == (503, True)
        # Redis is shared: its absence must not take every pod out of service.
        assert pod.lookup.get("/v2/health/ready")[0] == 200

        pod.predictor.process.kill()
        pod.predictor.process.wait()
        wait_until(lambda: pod.lookup.get("/v2/health/ready")[0] == 503, 10, "not ready without a predictor")


async def test_a_model_of_another_width_is_never_ready(tmp_path: Path) -> None:
    narrower = replace(VIEW, groups=(VIEW.group("user"),))
    train(tmp_path / "models", narrower, False)
    view_file = tmp_path / "view.yaml"
    view_file.write_text(to_yaml(VIEW))
    predictor = Unit(
        tmp_path / "p.log", "glowplug_xgboost", ["--model_name=shops", f"--model_dir={tmp_path}/models"]
    )
    common = [
        "--model_name=shops",
        f"--feature_view={view_file}",
        f"--predictor_host=127.0.0.1:{predictor.grpc_port}",
    ]
    env = {"REDIS_URL": f"unix://{tmp_path}/none.sock"}
    # Without the model's own view the predictor's metadata tell; with it, the feature has a name.
    lookup = Unit(tmp_path / "l.log", "glowplug_feature_lookup", [*common, f"--model_dir={tmp_path}"], env)
    named = Unit(
        tmp_path / "n.log", "glowplug_feature_lookup", [*common, f"--model_dir={tmp_path}/models"], env
    )
    try:
        expected = (
            "not ready: predictor shops takes 2 features, feature view shops has 3 (the last is 'visits')"
        )
        # Where the predictor comes up later than the lookup, it is the next probe that learns what it takes.
        wait_until(
            lambda: lookup.get("/v2/health/ready")[0] == 503 and expected in lookup.output(), 60, expected
        )
        assert lookup.get("/v2/health/ready")[0] == 503
        status, answer = lookup.infer(body([1]), "shops")
        assert (status, "takes 2 features" in answer["error"]) == (503, True)
        assert named.process.wait(60) == 1
        assert (
            "is not what the model was trained on: 3 features, must be 2: has besides 'visits'"
            in named.output()
        )
    finally:
        for unit in (lookup, named, predictor):
            unit.stop()


@pytest.mark.parametrize("protocol", ["grpc-v2", "v2"])
async def test_a_model_of_other_columns_is_never_ready_and_says_which(tmp_path: Path, protocol: str) -> None:
    """The predictor has a pod of its own: nothing but its metadata says what the model was trained on."""
    user = VIEW.group("user")
    swapped = replace(VIEW, groups=(replace(user, features=user.features[::-1]), VIEW.group("pair")))
    train(tmp_path / "models", swapped, False)
    view_file = tmp_path / "view.yaml"
    view_file.write_text(to_yaml(VIEW))
    predictor = Unit(
        tmp_path / "p.log", "glowplug_xgboost", ["--model_name=shops", f"--model_dir={tmp_path}/models"]
    )
    port = predictor.http_port if protocol == "v2" else predictor.grpc_port
    lookup = Unit(
        tmp_path / "l.log",
        "glowplug_feature_lookup",
        [
            "--model_name=shops",
            f"--feature_view={view_file}",
            f"--predictor_host=127.0.0.1:{port}",
            f"--predictor_protocol={protocol}",
            f"--model_dir={tmp_path}",
        ],
        {"REDIS_URL": f"unix://{tmp_path}/none.sock"},
    )
    try:
        expected = "predictor shops was trained on: column 0 is 'age', must be 'spend'"
        wait_until(
            lambda: lookup.get("/v2/health/ready")[0] == 503 and expected in lookup.output(), 60, expected
        )
        status, answer = lookup.infer(body([1]), "shops")
        assert (status, expected in answer["error"]) == (503, True)
    finally:
        for unit in (lookup, predictor):
            unit.stop()


async def test_not_ready_before_the_first_materialization(tmp_path: Path) -> None:
    train(tmp_path / "models", VIEW, False)
    view_file = tmp_path / "view.yaml"
    view_file.write_text(to_yaml(VIEW))
    async with start_redis(tmp_path / "redis") as redis:
        models = f"--model_dir={tmp_path}/models"
        predictor = Unit(tmp_path / "p.log", "glowplug_xgboost", ["--model_name=shops", models])
        host = f"--predictor_host=127.0.0.1:{predictor.grpc_port}"
        lookup = Unit(
            tmp_path / "l.log",
            "glowplug_feature_lookup",
            ["--model_name=shops", f"--feature_view={view_file}", host, models],
            {"REDIS_URL": redis.url},
        )
        try:
            expected = "not ready: feature view shops: group user, pair was never materialized"
            wait_until(
                lambda: lookup.get("/v2/health/ready")[0] == 503 and expected in lookup.output(), 60, expected
            )
            await fill(redis.url, VIEW)
            lookup.wait_ready()
            assert lookup.infer(body([1]), "shops")[0] == 200
        finally:
            lookup.stop()
            predictor.stop()


@pytest.mark.parametrize(
    ("args", "env", "code", "expected"),
    [
        (["--predictor_host=x"], {"REDIS_URL": ""}, 2, "$REDIS_URL is not set"),
        (["--predictor_host=x"], {"REDIS_URL": "mysql://x"}, 2, "scheme 'mysql', must be one of redis://"),
        ([], {"REDIS_URL": "redis://x"}, 2, "--predictor_host is missing"),
        (
            ["--predictor_host=x"],
            {"REDIS_URL": "redis://x"},
            1,
            "error: feature view none.yaml cannot be read",
        ),
    ],
)
async def test_a_wrong_start_ends_with_one_clear_line(
    tmp_path: Path, args: list[str], env: dict[str, str], code: int, expected: str
) -> None:
    unit = Unit(tmp_path / "log", "glowplug_feature_lookup", ["--feature_view=none.yaml", *args], env)
    try:
        assert unit.process.wait(60) == code
    finally:
        unit.stop()
    assert expected in unit.output()
    assert "Traceback" not in unit.output()
