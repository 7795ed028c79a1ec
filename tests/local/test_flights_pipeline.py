"""The flights workload on three weeks of real flights: no leakage, parity, a model that beats the baselines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import duckdb
import grpc
import numpy as np
import pytest
import pytest_asyncio
import xgboost
from local.postgres_lab import postgres_server
from unit.features.lab import FLIGHTS_VIEW, Unit

from glowplug.errors import FeatureError
from glowplug.features import offline
from glowplug.features.offline_training import training_set
from glowplug.features.online import OnlineConfig, OnlineStore
from glowplug.features.parse import read_view
from glowplug.features.redis_server import RedisServer, start_redis
from glowplug.features.resolve import resolve
from glowplug.features.view import FeatureView
from glowplug.wire import InferResponse, Tensor
from glowplug.wire.v2_grpc import (
    ModelMetadata,
    TensorMetadata,
    decode_infer_request,
    encode_infer_response,
    encode_model_metadata,
)
from glowplug_flights import dataset
from glowplug_flights.demo import FlightsDemo, Period, request_body
from glowplug_flights.tables import build_tables, spine
from glowplug_flights.training import Trained

pytestmark = pytest.mark.asyncio(loop_scope="module")

PERIOD = Period(start="2013-03-11", validation="2013-03-25", serving="2013-04-01", stop="2013-05-01")
GROUPS = {"route_hour": 5, "carrier_hour": 4, "plane": 3, "plane_hour": 4}


@pytest.fixture(scope="module")
def view() -> FeatureView:
    return read_view(FLIGHTS_VIEW)


@pytest.fixture(scope="module")
def progress() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def demo(
    view: FeatureView, progress: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlightsDemo]:
    demo = FlightsDemo(
        tmp_path_factory.mktemp("flights"),
        view,
        lambda *step: progress.append(step),
        period=PERIOD,
        rounds=60,
    )
    demo.prepare_offline()
    yield demo
    demo.close()


@pytest.fixture(scope="module")
def trained(demo: FlightsDemo) -> Trained:
    return demo.train()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis(demo: FlightsDemo, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisServer]:
    async with start_redis(tmp_path_factory.mktemp("redis")) as redis:
        written = await demo.materialize(redis.url)
        assert set(written) == set(GROUPS)
        assert written["plane"] > 3000
        assert written["route_hour"] > 20_000
        yield redis


async def test_a_sample_is_of_real_flights(demo: FlightsDemo) -> None:
    flights = demo.sample_requests(50)
    assert flights == demo.sample_requests(50)
    assert len({(flight.name, flight.scheduled_hour) for flight in flights}) == 50
    assert [flight.scheduled_hour for flight in flights] == sorted(
        flight.scheduled_hour for flight in flights
    )
    assert {flight.scheduled_hour.month for flight in flights} == {4}
    assert flights[0].entities["scheduled_hour"] == flights[0].scheduled_hour.strftime("%Y-%m-%dT%H:%MZ")
    body = flights[0].body()
    assert [each["name"] for each in body["inputs"]] == [
        "origin",
        "dest",
        "scheduled_hour",
        "carrier",
        "tailnum",
    ]
    assert json.loads(json.dumps(body)) == body
    with pytest.raises(FeatureError, match="month 5 is not served"):
        demo.sample_requests(1, month=5)


async def test_online_rows_equal_the_training_rows_bit_for_bit(
    demo: FlightsDemo, view: FeatureView, redis: RedisServer
) -> None:
    days = spine("2013-04-01", "2013-04-08")
    with offline.connect() as connection:
        dataset.load(connection, PERIOD.start, PERIOD.stop)
        offline_set = training_set(connection, demo.store, days)
        rows = connection.execute(days).fetchnumpy()
    entities = {entity.name: [str(each) for each in rows[entity.name]] for entity in view.entities}
    async with OnlineStore(OnlineConfig(redis.url, timeout_s=10)) as store:
        online = await store.read(view, entities)
    matrix, report = resolve(view, online, 0)
    assert len(matrix) > 6000
    assert np.isfinite(matrix).all()
    assert matrix.tobytes() == offline_set.features.tobytes()
    assert report == offline_set.report
    # Features that are the same in every row would be no features.
    constant = [
        name for name, column in zip(view.feature_names, matrix.T, strict=True) if (column == column[0]).all()
    ]
    assert constant == []


async def test_history_built_month_by_month_in_postgres_is_the_same_and_so_is_what_the_lookup_sends(
    demo: FlightsDemo, view: FeatureView, tmp_path: Path
) -> None:
    """The training rows of both stores, and the tensor that goes over the wire to the predictor: the same bytes."""
    week = spine("2013-04-01", "2013-04-08")
    with postgres_server() as postgres, offline.connect() as connection:
        other = FlightsDemo(tmp_path, view, period=PERIOD, offline_url=postgres.url)
        build_tables(connection, other.store, PERIOD.start, "2013-04-01", _silent)
        april = build_tables(connection, other.store, "2013-04-01", PERIOD.stop, _silent, since=PERIOD.start)
        for group in view.groups:
            parts = other.store.parts(group)
            assert parts == demo.store.parts(group)
            assert sum(part.rows for part in parts.values()) >= april[group.name] > 0
        trained = [training_set(connection, store, week) for store in (demo.store, other.store)]
        rows = connection.execute(week).fetchnumpy()
        async with start_redis(tmp_path / "redis") as redis:
            await other.materialize(redis.url)
            assert set((await other.materialize(redis.url, incremental=True)).values()) == {0}
            sent = await _sent_by_the_lookup(view, redis.url, rows, tmp_path)
        other.close()
    assert trained[0].features.tobytes() == trained[1].features.tobytes()
    assert trained[0].report == trained[1].report
    assert len(sent) > 6000
    assert sent.tobytes() == trained[1].features.tobytes()


def _silent(what: str, done: int, total: int) -> None:
    pass


async def _sent_by_the_lookup(
    view: FeatureView, redis_url: str, rows: dict[str, Any], folder: Path
) -> np.ndarray[Any, Any]:
    """What a predictor is sent by a feature lookup's process that is asked for all of `rows`: float32 [n, features]."""
    sent: list[np.ndarray[Any, Any]] = []

    async def metadata(data: bytes, _: Any) -> bytes:
        tensor = TensorMetadata("x", "FP32", (-1, len(view.features)))
        return encode_model_metadata(ModelMetadata("flights", inputs=(tensor,), columns=view.feature_names))

    async def infer(data: bytes, _: Any) -> bytes:
        request = decode_infer_request(data, accepts_missing=True)
        matrix = request.inputs[0].as_numpy().astype(np.float32, copy=True)
        sent.append(matrix)
        answer = Tensor("y", "FP32", (len(matrix),), np.zeros(len(matrix), np.float32))
        return encode_infer_response(InferResponse("flights", (answer,)))

    predictor = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    methods = {
        name: grpc.unary_unary_rpc_method_handler(work)
        for name, work in {"ModelMetadata": metadata, "ModelInfer": infer}.items()
    }
    handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)
    predictor.add_generic_rpc_handlers((handler,))
    port = predictor.add_insecure_port("127.0.0.1:0")
    await predictor.start()
    args = ["--model_name=flights", f"--feature_view={FLIGHTS_VIEW}", f"--predictor_host=127.0.0.1:{port}"]
    lookup = Unit(
        folder / "lookup.log",
        "glowplug_feature_lookup",
        [*args, f"--model_dir={folder}", "--redis_timeout_s=20"],
        {"REDIS_URL": redis_url},
    )
    try:
        await anyio.to_thread.run_sync(lookup.wait_ready)
        count = len(rows["origin"])
        for start in range(0, count, 1000):
            inputs = [
                {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": data}
                for name, data in (
                    (entity.name, [str(each) for each in rows[entity.name][start : start + 1000]])
                    for entity in view.entities
                )
            ]
            status, answer = await anyio.to_thread.run_sync(lookup.infer, {"inputs": inputs}, "flights")
            assert status == 200, answer
    finally:
        await anyio.to_thread.run_sync(lookup.stop)
        await predictor.stop(None)
    return np.concatenate(sent)


async def test_raw_data_of_another_form_are_one_error_that_names_what_moved(tmp_path: Path) -> None:
    files = dataset.data_files()
    planes = tmp_path / "planes.csv"
    planes.write_text(
        files["planes.csv"].read_text().replace("seats", "places", 1).replace(",2,55,", ",two,55,")
    )
    with (
        offline.connect(threads=1) as connection,
        pytest.raises(
            FeatureError,
            match=r"planes\.engines is VARCHAR, must be BIGINT or DOUBLE; planes\.seats is missing, must be BIGINT",
        ),
    ):
        dataset.check_columns(connection, {"planes": str(planes), "airports": str(files["airports.csv"])})


async def test_no_feature_sees_the_outcome_of_a_flight_not_yet_over(
    tmp_path: Path, view: FeatureView
) -> None:
    moment = "TIMESTAMP '2013-03-20 18:00:00'"
    before: dict[str, Any] = {}
    with offline.connect() as connection:
        dataset.load(connection, "2013-03-15", "2013-03-23")
        for is_changed in (False, True):
            if is_changed:
                _change_the_future(connection, moment)
            connection.execute(dataset.sql("known"))
            for group in view.groups:
                rows = connection.execute(
                    f"SELECT * FROM ({dataset.sql(group.source)}) WHERE event_timestamp <= {moment} ORDER BY ALL"
                ).fetchall()
                assert len(rows) > 500
                assert before.setdefault(group.name, rows) == rows, group.name
            later = connection.execute(
                f"SELECT avg(origin_departure_delay_3h) FROM ({dataset.sql('route_hour')}) "
                f"WHERE event_timestamp > {moment}"
            ).fetchall()
            assert before.setdefault(f"later {is_changed}", later)
    assert before["later False"] != before["later True"]


def _change_the_future(connection: duckdb.DuckDBPyConnection, moment: str) -> None:
    """Every departure, arrival and cancellation that was not known at the moment turns out otherwise."""
    connection.execute(
        f"""
        UPDATE flights SET
          is_cancelled = is_cancelled != (scheduled_hour + INTERVAL 6 HOURS > {moment}),
          dep_delay = CASE WHEN departed_at > {moment} THEN dep_delay + 500 ELSE dep_delay END,
          arr_delay = CASE WHEN arrived_at > {moment} THEN arr_delay + 500 ELSE arr_delay END,
          departed_at = CASE WHEN departed_at > {moment} THEN departed_at + INTERVAL 7 MINUTES ELSE departed_at END,
          arrived_at = CASE WHEN arrived_at > {moment} THEN arrived_at + INTERVAL 7 MINUTES ELSE arrived_at END
        """
    )
    connection.execute(f"UPDATE weather SET temp = -temp, precip = precip + 9 WHERE observed_at >= {moment}")


async def test_the_model_beats_the_baselines(
    demo: FlightsDemo, view: FeatureView, trained: Trained, redis: RedisServer
) -> None:
    flights = demo.sample_requests(3000)
    async with OnlineStore(OnlineConfig(redis.url, timeout_s=10)) as store:
        entities = {each.name: [flight.entities[each.name] for flight in flights] for each in view.entities}
        matrix, _ = resolve(view, await store.read(view, entities), 0)
    result = demo.evaluate(flights, trained.booster.inplace_predict(matrix).tolist())
    assert result.flights == 3000
    assert result.mae < result.best_baseline[1] * 0.95, result
    assert trained.validation_mae < min(trained.validation_baselines.values())
    with pytest.raises(FeatureError, match="2 predictions for 3000 flights"):
        demo.evaluate(flights, [1.0, 2.0])


async def test_the_model_directory_and_progress(
    demo: FlightsDemo, view: FeatureView, trained: Trained, progress: list[tuple[str, int, int]]
) -> None:
    booster = xgboost.Booster(model_file=demo.model_dir / "model.ubj")
    assert booster.attr("glowplug.schema_hash") == view.schema_hash
    assert tuple(booster.feature_names or ()) == view.feature_names
    assert booster.num_boosted_rounds() == trained.trees
    assert read_view(demo.model_dir / "feature_view.yaml") == view
    assert sorted(path.name for path in demo.model_dir.iterdir()) == ["feature_view.yaml", "model.ubj"]
    steps = {what for what, _, _ in progress}
    assert {
        "building route_hour",
        "offline tables written",
        "point-in-time training set",
        "training",
    } <= steps
    assert [done for what, done, _ in progress if what == "training"] == sorted(
        done for what, done, _ in progress if what == "training"
    )


async def test_the_lookup_serves_it(
    demo: FlightsDemo, trained: Trained, redis: RedisServer, view: FeatureView, tmp_path: Path
) -> None:
    models = f"--model_dir={demo.model_dir}"
    predictor = Unit(tmp_path / "predictor.log", "glowplug_xgboost", ["--model_name=flights", models])
    host = f"--predictor_host=127.0.0.1:{predictor.grpc_port}"
    args = [
        "--model_name=flights",
        f"--feature_view={FLIGHTS_VIEW}",
        host,
        models,
        "--enable_predictor_health_check",
    ]
    lookup = Unit(tmp_path / "lookup.log", "glowplug_feature_lookup", args, {"REDIS_URL": redis.url})
    try:
        lookup.wait_ready()
        flights = demo.sample_requests(200)
        status, answer = lookup.infer(request_body(flights), "flights")
        assert status == 200, answer
        async with OnlineStore(OnlineConfig(redis.url, timeout_s=10)) as store:
            entities = {
                each.name: [flight.entities[each.name] for flight in flights] for each in view.entities
            }
            matrix, report = resolve(view, await store.read(view, entities), 0)
        assert np.array_equal(
            np.array(answer["outputs"][0]["data"], np.float32), trained.booster.inplace_predict(matrix)
        )
        assert answer["parameters"] == report.parameters()
        unknown = flights[0].body()
        unknown["inputs"][0]["data"] = ["LHR"]
        status, answer = lookup.infer(unknown, "flights")
        assert (status, "feature group route_hour" in answer["error"]) == (400, True)
    finally:
        lookup.stop()
        predictor.stop()
