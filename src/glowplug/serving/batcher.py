"""The loop that runs a model's batches, one at a time; `batching.py` decides, `stacking.py` stacks and cuts.

A plain model on the event loop that is idle predicts a request where it stands, without a hop: for small models that
is most of the time they take. What gets ready in that turn of the loop waits, and is the next batch. A worker task
lives as long as something waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from glowplug.errors import InferenceError
from glowplug.serving.batching import Limits, Rhythm, Waiting, after, decide
from glowplug.serving.metrics import Metrics
from glowplug.serving.model import Model
from glowplug.serving.stacking import kind, row_count, stack, unstack
from glowplug.serving.urgency import Expired, urgency
from glowplug.wire import InferRequest, InferResponse

log = logging.getLogger("glowplug.serving")

CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class _Call(Waiting):
    request: InferRequest
    future: asyncio.Future[InferResponse]
    since: float
    timer: asyncio.TimerHandle | None = None

    def leave(self) -> None:
        """Out of the queue, whatever for."""
        if self.timer is not None:
            self.timer.cancel()

    def answer(self, response: InferResponse) -> None:
        if not self.future.done():
            self.future.set_result(response)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batcher:
    """Predicts for one model with `max_batch_size` above 1."""

    def __init__(self, model: Model, metrics: Metrics) -> None:
        self._model = model
        self._metrics = metrics
        self._is_async = inspect.iscoroutinefunction(model.predict)
        self._queue: list[_Call] = []
        self._is_busy = False
        self._rhythm = Rhythm()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def submit(self, request: InferRequest) -> Any:
        """The response, or a future of it; cancelling that frees the place.

        Raises what `predict` raises; the future also Expired (504).
        """
        if not self._is_busy and self._is_inline():
            self._is_busy = True
            asyncio.get_running_loop().call_soon(self._end_turn)
            return self._predict_in_place(request)
        call = self._enqueue(request)
        if not self._is_busy:
            self._is_busy = True
            self._end_turn()
        return call.future

    def _is_inline(self) -> bool:
        return not (self._model.in_thread or self._is_async)

    def _predict_in_place(self, request: InferRequest) -> Any:
        metrics, name = self._metrics, self._model.name
        started = time.monotonic()
        response = self._model.predict(request)
        metrics.predict.observe(name, time.monotonic() - started)
        metrics.batch_size.observe(name, row_count(request))
        metrics.queue.observe(name, 0.0)
        return response

    def _enqueue(self, request: InferRequest) -> _Call:
        loop = asyncio.get_running_loop()
        asked = urgency()
        now = time.monotonic()
        call = _Call(
            kind(request),
            row_count(request),
            asked.priority,
            asked.deadline,
            request,
            loop.create_future(),
            now,
        )
        if asked.deadline is not None:
            # A client is told at its deadline, not when the batch that runs now has ended.
            call.timer = loop.call_later(asked.deadline - now, _expire, call)
        self._queue.append(call)
        self._arrived.set()
        return call

    def _end_turn(self) -> None:
        if not self._queue:
            self._is_busy = False
            return
        loop = asyncio.get_running_loop()
        name = f"batches of {self._model.name}"
        # A batch is nobody's request in particular: in a context of its own the model sees no headers.
        self._worker = Context().run(lambda: loop.create_task(self._work(), name=name))

    async def _work(self) -> None:
        try:
            while self._queue:
                batch = await self._next_batch()
                if batch:
                    await self._run(batch)
                    self._rhythm = after(len(batch), self._limits(), time.monotonic())
                    # One turn of the loop: answers go out, and who is ready comes in.
                    await asyncio.sleep(0)
        finally:
            self._is_busy = False
            self._abandon(self._queue)
            self._queue.clear()

    def _abandon(self, calls: Sequence[_Call]) -> None:
        """Those without an answer get none: the worker was ended."""
        for call in calls:
            call.leave()
            call.fail(InferenceError(f"model {self._model.name!r} is closed", code=503))

    def _limits(self) -> Limits:
        model = self._model
        # While a plain model predicts on the loop nobody arrives, and turns of the loop gather those who did.
        return Limits(model.max_batch_size, 0.0 if self._is_inline() else model.max_queue_delay_s)

    async def _next_batch(self) -> Sequence[_Call]:
        """Empty where it was better to wait; something may have arrived since."""
        now = time.monotonic()
        alive = [call for call in self._queue if not call.future.done()]
        if len(alive) < len(self._queue):
            self._forget_the_gone()
        decision = decide(alive, self._rhythm, self._limits(), now)
        self._queue = list(decision.rest)
        for call in decision.expired:
            call.leave()
            call.fail(Expired())
        for call in decision.batch:
            call.leave()
        if decision.wake_at is not None:
            self._arrived.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), decision.wake_at - now)
        return decision.batch

    def _forget_the_gone(self) -> None:
        for call in self._queue:
            if call.future.done():
                call.leave()
                if call.future.cancelled():
                    self._metrics.drop(self._model.name, CANCELLED)

    async def _run(self, batch: Sequence[_Call]) -> None:
        metrics, name = self._metrics, self._model.name
        started = time.monotonic()
        for call in batch:
            metrics.queue.observe(name, started - call.since)
        metrics.batch_size.observe(name, sum(call.rows for call in batch))
        try:
            if len(batch) == 1:
                await self._run_alone(batch[0])
            else:
                await self._run_stacked(batch)
        finally:
            self._abandon(batch)
        metrics.predict.observe(name, time.monotonic() - started, len(batch))

    async def _run_stacked(self, batch: Sequence[_Call]) -> None:
        try:
            response = await predicted(self._model, stack([call.request for call in batch]))
            answers = unstack(response, [call.rows for call in batch])
        except Exception as error:
            log.info(
                "model %s: a batch of %d requests failed (%s: %s); each is tried alone",
                self._model.name, len(batch), type(error).__name__, error,
            )  # fmt: skip
            for call in batch:
                await self._run_alone(call)
                await asyncio.sleep(0)
            return
        for call, answer in zip(batch, answers, strict=True):
            call.answer(answer)

    async def _run_alone(self, call: _Call) -> None:
        if call.future.done():
            return
        if call.deadline is not None and call.deadline <= time.monotonic():
            call.fail(Expired())
            return
        try:
            call.answer(await predicted(self._model, call.request))
        except Exception as error:
            call.fail(error)

    async def close(self) -> None:
        """Ends the worker; what still waits is told so (503)."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._abandon(self._queue)


async def predicted(model: Model, request: InferRequest) -> Any:
    """What `predict` returns, awaited if it can be, from a worker thread if the model says so."""
    response: Any
    if model.in_thread:
        from anyio import to_thread  # costs 15 ms, which only slow models pay

        response = await to_thread.run_sync(model.predict, request)
    else:
        response = model.predict(request)
    return await response if hasattr(response, "__await__") else response


def _expire(call: _Call) -> None:
    call.fail(Expired())
