"""The loop that runs batches, on the real event loop: threads, plain and async models."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import copy_context
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowplug.errors import InferenceError
from glowplug.serving import Model, request_headers
from glowplug.serving.context import set_request_headers
from glowplug.serving.light import LightModel
from glowplug.serving.metrics import Metrics
from glowplug.serving.urgency import Expired, Urgency, set_urgency
from glowplug.wire import InferRequest, InferResponse, Tensor

DEADLINE_S = 10


class Doubler(Model):
    """Doubles; a row that is negative is refused. It keeps what it saw, and waits at its gate where it has one."""

    max_batch_size = 4
    max_queue_delay_s = 0.002
    gate: threading.Event | None = None

    def __init__(self) -> None:
        super().__init__("m")
        self.batches: list[list[float]] = []
        self.entered = threading.Event()

    def predict(self, request: InferRequest) -> Any:
        data = request.input("x").data
        self.batches.append(data[:, 0].tolist())
        self.headers = dict(request_headers())
        self.entered.set()
        if self.gate is not None:
            self.gate.wait(DEADLINE_S)
        if (data < 0).any():
            raise InferenceError("negative")
        return InferResponse("m", (Tensor.from_numpy("y", data * 2),))


class Threaded(Doubler):
    in_thread = True


class Async(Doubler):
    async def predict(self, request: InferRequest) -> InferResponse:
        await asyncio.sleep(0)
        answer: InferResponse = super().predict(request)
        return answer


KINDS = [Doubler, Threaded, Async]


def ask(value: float, rows: int = 1, dtype: Any = np.float32, **parameters: Any) -> InferRequest:
    return InferRequest(
        "m", (Tensor.from_numpy("x", np.full((rows, 1), value, dtype=dtype)),), parameters=parameters
    )


async def infer(served: LightModel, request: InferRequest, limit_s: float | None = None) -> Any:
    set_urgency(request.parameters, limit_s)
    set_request_headers({"x-request-id": "r"})
    return (await served.infer(request, {})).output("y").data[:, 0].tolist()


def start(served: LightModel, request: InferRequest, limit_s: float | None = None) -> asyncio.Task[Any]:
    return copy_context().run(asyncio.ensure_future, infer(served, request, limit_s))


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, DEADLINE_S)


REQUESTS = st.lists(
    st.tuples(st.integers(-1, 50), st.integers(1, 6), st.sampled_from([np.float32, np.int64]), st.booleans()),
    min_size=1,
    max_size=30,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(requests=REQUESTS)
async def test_every_request_gets_its_own_rows_and_a_bad_one_fails_alone(kind: Any, requests: Any) -> None:
    model = kind()
    served = LightModel(model, Metrics())
    tasks = []
    for value, rows, dtype, has_pause in requests:
        tasks.append(start(served, ask(value, rows, dtype)))
        if has_pause:
            await asyncio.sleep(0)
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), DEADLINE_S)
    for (value, rows, _, _), answer in zip(requests, answers, strict=True):
        if value < 0:
            assert isinstance(answer, InferenceError)
        else:
            assert answer == [value * 2] * rows
    largest = max(rows for _, rows, _, _ in requests)
    assert max(map(len, model.batches)) <= max(model.max_batch_size, largest)
    await served.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_waits_while_a_batch_runs_is_the_next_one(kind: Any) -> None:
    model = kind()
    served = LightModel(model, Metrics())
    tasks = [start(served, ask(value)) for value in range(6)]
    assert await asyncio.gather(*tasks) == [[value * 2] for value in range(6)]
    assert model.batches == [[0, 1, 2, 3], [4, 5]]
    await served.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lone_request_never_waits(kind: Any) -> None:
    model = kind()
    model.max_queue_delay_s = DEADLINE_S * 2
    served = LightModel(model, Metrics())
    for value in range(5):
        assert await asyncio.wait_for(infer(served, ask(value)), DEADLINE_S) == [value * 2]
    assert model.batches == [[0], [1], [2], [3], [4]]
    await served.close()


async def test_a_plain_model_predicts_what_one_turn_of_the_loop_brought_without_a_task() -> None:
    model = Doubler()
    served = LightModel(model, Metrics())
    await infer(served, ask(0))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks()
    results: list[Any] = []
    for turn in range(2):
        for value in range(3):
            loop.call_soon(lambda v=value: served.submit(ask(v), Urgency(), results.append))
        await asyncio.sleep(0)
        # The turn in which they came is over; the next begins with their batch.
        assert (len(model.batches), len(results)) == (1 + turn, 3 * turn)
        assert asyncio.all_tasks() == tasks
        await asyncio.sleep(0)
        assert model.batches[-1] == [0, 1, 2]
    assert [answer.output("y").data[0, 0] for answer in results] == [0, 2, 4] * 2
    assert model.headers == {}


async def test_what_a_plain_predict_returns_may_have_to_be_awaited() -> None:
    class Wrapped(Doubler):
        def predict(self, request: InferRequest) -> Any:
            return super_predict(self, request)

    async def super_predict(model: Any, request: InferRequest) -> Any:
        await asyncio.sleep(0)
        return Doubler.predict(model, request)

    served = LightModel(Wrapped(), Metrics())
    for value in range(2):
        assert await asyncio.wait_for(infer(served, ask(value)), DEADLINE_S) == [value * 2]
    await served.close()


async def test_a_cancelled_call_is_not_told_and_an_expired_one_costs_nothing() -> None:
    model, metrics, results = Doubler(), Metrics(), []
    served = LightModel(model, metrics)
    await infer(served, ask(0))
    gone = served.submit(ask(1), Urgency(), results.append)
    served.submit(ask(2), Urgency(deadline=time.monotonic()), results.append)
    gone.cancel()
    gone.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert model.batches == [[0]]
    assert [type(result) for result in results] == [Expired]
    assert 'glowplug_requests_dropped_total{model_name="m",reason="cancelled"} 1' in metrics.render().decode()


async def test_the_loop_is_free_while_a_thread_predicts() -> None:
    model = Threaded()
    model.gate = threading.Event()
    served = LightModel(model, Metrics())
    task = start(served, ask(1))
    await until(model.entered)
    for _ in range(10):
        await asyncio.sleep(0)
    model.gate.set()
    assert await task == [2]
    await served.close()


async def running() -> tuple[Threaded, LightModel, Metrics, asyncio.Task[Any]]:
    """A model that is in the middle of predicting 0."""
    model, metrics = Threaded(), Metrics()
    model.gate = threading.Event()
    served = LightModel(model, metrics)
    first = start(served, ask(0))
    await until(model.entered)
    return model, served, metrics, first


async def test_the_expired_are_told_at_their_deadline_and_never_reach_the_model() -> None:
    model, served, _, first = await running()
    late, patient = start(served, ask(1), 0.02), start(served, ask(2), DEADLINE_S)
    with pytest.raises(Expired) as caught:
        await asyncio.wait_for(late, DEADLINE_S)
    assert caught.value.code == 504
    assert not first.done()
    assert model.gate is not None
    model.gate.set()
    assert await asyncio.gather(first, patient) == [[0], [4]]
    assert model.batches == [[0], [2]]
    await served.close()


@pytest.mark.parametrize("batch_size", [1, 4])
async def test_a_deadline_that_has_passed_costs_nothing(batch_size: int) -> None:
    model = Doubler()
    model.max_batch_size = batch_size
    with pytest.raises(Expired):
        await infer(LightModel(model, Metrics()), ask(1), 0.0)
    assert model.batches == []


async def test_a_cancelled_request_frees_its_place() -> None:
    model, served, metrics, first = await running()
    tasks = [start(served, ask(value)) for value in (1, 2, 3, 4, 5)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    assert model.gate is not None
    model.gate.set()
    first_answer, *others = await asyncio.gather(first, tasks[0], *tasks[2:])
    assert (first_answer, others) == ([0], [[2], [6], [8], [10]])
    assert model.batches == [[0], [1, 3, 4, 5]]
    assert 'glowplug_requests_dropped_total{model_name="m",reason="cancelled"} 1' in metrics.render().decode()
    await served.close()


async def test_priority_orders_what_waits() -> None:
    model, served, _, first = await running()
    tasks = [start(served, ask(value, 3, priority=level)) for value, level in ((1, 9), (2, 0), (3, 1))]
    await asyncio.sleep(0)
    assert model.gate is not None
    model.gate.set()
    await asyncio.gather(first, *tasks)
    assert model.batches == [[0], [3] * 3, [2] * 3, [1] * 3]
    await served.close()


async def test_a_batch_sees_no_headers_and_is_measured() -> None:
    model, served, metrics, first = await running()
    tasks = [start(served, ask(value)) for value in (1, 2)]
    await asyncio.sleep(0)
    assert model.gate is not None
    model.gate.set()
    await asyncio.gather(first, *tasks)
    assert model.headers == {}
    page = metrics.render().decode()
    assert 'glowplug_batch_rows_bucket{model_name="m",le="1"} 1' in page
    assert 'glowplug_batch_rows_sum{model_name="m"} 3' in page
    assert 'glowplug_queue_seconds_count{model_name="m"} 3' in page
    assert 'request_predict_seconds_count{model_name="m"} 3' in page
    await served.close()


class Sums(Threaded):
    def predict(self, request: InferRequest) -> Any:
        super().predict(request)
        return InferResponse("m", (Tensor.from_numpy("y", request.input("x").data.sum(keepdims=True)),))


async def test_a_model_that_is_not_row_wise_still_answers_right() -> None:
    served = LightModel(Sums(), Metrics())
    tasks = [start(served, ask(value)) for value in range(4)]
    assert await asyncio.gather(*tasks) == [[value] for value in range(4)]
    await served.close()


async def test_close_lets_go_of_what_waits() -> None:
    model, served, _, first = await running()
    waiting = start(served, ask(1))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(served.close())
    assert model.gate is not None
    model.gate.set()
    await asyncio.wait_for(closing, DEADLINE_S)
    await asyncio.wait({first, waiting}, timeout=DEADLINE_S)
    for task in (first, waiting):
        with pytest.raises(InferenceError, match="is closed") as caught:
            task.result()
        assert caught.value.code == 503
    assert model.batches == [[0]]


async def test_waits_stay_short_while_batches_are_short() -> None:
    model, metrics = Threaded(), Metrics()
    served = LightModel(model, metrics)
    started = time.monotonic()
    for _ in range(5):
        await asyncio.gather(*(start(served, ask(value)) for value in range(4)))
    # Five rounds of two batches; each is held back for its delay at most once.
    assert time.monotonic() - started < 10 * model.max_queue_delay_s + 2
    await served.close()
