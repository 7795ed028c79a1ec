"""The loop that runs a model's batches, one at a time; `batching.py` decides, `stacking.py` stacks and cuts.

A plain model on the event loop predicts at the end of the loop's turn in which requests came: all that were ready at
once share a batch, none waits for a timer, and neither a task nor a future is made. A model that is async, or in a
thread, has a worker task for as long as something waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from contextvars import Context
from typing import Any

from glowplug.errors import InferenceError
from glowplug.serving.batching import Decision, Limits, Rhythm, after, decide
from glowplug.serving.metrics import Metrics
from glowplug.serving.model import Model
from glowplug.serving.stacking import kind, row_count, stack, unstack
from glowplug.serving.urgency import Expired, Urgency, urgency
from glowplug.wire import InferRequest, InferResponse

log = logging.getLogger("glowplug.serving")

CANCELLED = "cancelled"

Done = Callable[[InferResponse | Exception], None]
"""Gets the answer, or why there is none, once; it must not raise."""

_UNKNOWN = object()


class Call:
    """A request that waits for its batch, or is in it."""

    __slots__ = (
        "_done", "_kind", "deadline", "is_cancelled", "is_over", "priority", "request", "rows", "since", "timer",
    )  # fmt: skip

    def __init__(self, request: InferRequest, asked: Urgency, done: Done, since: float) -> None:
        self.request = request
        self.rows = row_count(request)
        self.priority = asked.priority
        self.deadline = asked.deadline
        self.since = since
        self.timer: asyncio.TimerHandle | None = None
        # Answered, failed or cancelled: `done` is never called again.
        self.is_over = False
        self.is_cancelled = False
        self._done = done
        self._kind: Any = _UNKNOWN

    @property
    def kind(self) -> Hashable | None:
        """Worked out only where there is another request to compare with."""
        if self._kind is _UNKNOWN:
            self._kind = kind(self.request)
        return self._kind  # type: ignore[no-any-return]

    def cancel(self) -> None:
        """Nobody waits for the answer any more: `done` is not called, and a place in the queue is free."""
        if not self.is_over:
            self.is_over = self.is_cancelled = True
            self._disarm()

    def tell(self, result: InferResponse | Exception) -> None:
        """The answer, or why there is none, unless it was told before."""
        if not self.is_over:
            self.is_over = True
            self._disarm()
            self._done(result)

    def _disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Batcher:
    """Predicts for one model with `max_batch_size` above 1."""

    def __init__(self, model: Model, metrics: Metrics) -> None:
        self._model = model
        self._metrics = metrics
        # Shown by the first batch: a `predict` without `async` may still return something to await.
        self._is_immediate = False
        self._queue: list[Call] = []
        self._is_busy = False
        self._rhythm = Rhythm()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def submit(self, request: InferRequest, asked: Urgency, done: Done) -> Call:
        """Queues a request; `done` gets an InferResponse or an exception, later, never from within.

        The exception is what `predict` raised, Expired (504), or InferenceError (503) where the model was closed.
        """
        call = Call(request, asked, done, time.monotonic())
        self._queue.append(call)
        if call.deadline is not None and not self._is_plain():
            # A client is told at its deadline, not when the batch that runs now has ended. A plain model's batch
            # holds the loop, and with it every timer.
            loop = asyncio.get_running_loop()
            call.timer = loop.call_later(call.deadline - call.since, call.tell, Expired())
        if self._is_busy:
            self._arrived.set()
        else:
            self._begin()
        return call

    async def infer(self, request: InferRequest) -> InferResponse:
        """`submit` with the urgency of the request being served, to be awaited; cancelling it frees the place."""
        future: asyncio.Future[InferResponse] = asyncio.get_running_loop().create_future()

        def settle(result: InferResponse | Exception) -> None:
            if future.done():
                return
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        call = self.submit(request, urgency(), settle)
        try:
            return await future
        except asyncio.CancelledError:
            call.cancel()
            raise

    def _is_plain(self) -> bool:
        return self._is_immediate and not self._model.in_thread

    def _begin(self) -> None:
        """Has what waits predicted: at the end of this turn of the loop, or by a worker."""
        self._is_busy = True
        loop = asyncio.get_running_loop()
        # A batch is nobody's request in particular: in a context of its own the model sees no headers.
        context = Context()
        if self._is_plain():
            loop.call_soon(self._turn, context=context)
        else:
            name = f"batches of {self._model.name}"
            self._worker = context.run(lambda: loop.create_task(self._work(), name=name))

    def _turn(self) -> None:
        """One batch of a plain model; after it, a turn of the loop: answers go out, and who is ready comes in."""
        batch = self._decide(time.monotonic()).batch
        if self._queue:
            self._begin()
        else:
            self._is_busy = False
        if batch:
            work = self._run(batch)
            try:
                work.send(None)
            except StopIteration:
                return
            # Whoever waits is told by the coroutine's end.
            work.close()
            raise RuntimeError(
                f"model {self._model.name!r}: predict returns now answers, now something to await"
            )

    async def _work(self) -> None:
        try:
            while self._queue and not self._is_plain():
                now = time.monotonic()
                decision = self._decide(now)
                if decision.wake_at is not None:
                    self._arrived.clear()
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._arrived.wait(), decision.wake_at - now)
                if decision.batch:
                    await self._run(decision.batch)
                    self._rhythm = after(len(decision.batch), self._limits(), time.monotonic())
                    await asyncio.sleep(0)
        except BaseException:
            self._abandon(self._queue)
            self._queue.clear()
            raise
        finally:
            self._is_busy = False
            if self._queue:
                self._begin()

    def _abandon(self, calls: Sequence[Call]) -> None:
        """Those without an answer get none: the model is closed."""
        for call in calls:
            if not call.is_over:
                call.tell(InferenceError(f"model {self._model.name!r} is closed", code=503))

    def _limits(self) -> Limits:
        model = self._model
        # While a plain model predicts on the loop nobody arrives, and turns of the loop gather those who did.
        return Limits(model.max_batch_size, 0.0 if self._is_plain() else model.max_queue_delay_s)

    def _decide(self, now: float) -> Decision[Call]:
        """The next batch, which is empty where it was better to wait; who expired is told."""
        alive = [call for call in self._queue if not call.is_over]
        if len(alive) < len(self._queue):
            for call in self._queue:
                if call.is_cancelled:
                    self._metrics.drop(self._model.name, CANCELLED)
        decision = decide(alive, self._rhythm, self._limits(), now)
        self._queue = list(decision.rest)
        for call in decision.expired:
            call.tell(Expired())
        return decision

    async def _run(self, batch: Sequence[Call]) -> None:
        metrics, name = self._metrics, self._model.name
        started = time.monotonic()
        rows = 0
        for call in batch:
            rows += call.rows
            metrics.queue.observe(name, started - call.since)
        metrics.batch_size.observe(name, rows)
        try:
            if len(batch) == 1:
                results: Sequence[InferResponse | Exception] = [await self._alone(batch[0])]
            else:
                results = await self._stacked(batch)
            # Before anybody is told, which is when answers are encoded and sent.
            metrics.predict.observe(name, time.monotonic() - started, len(batch))
            for call, result in zip(batch, results, strict=True):
                call.tell(result)
        finally:
            self._abandon(batch)

    async def _stacked(self, batch: Sequence[Call]) -> Sequence[InferResponse | Exception]:
        try:
            response = await self._predicted(stack([call.request for call in batch]))
            return unstack(response, [call.rows for call in batch])
        except Exception as error:
            log.info(
                "model %s: a batch of %d requests failed (%s: %s); each is tried alone",
                self._model.name, len(batch), type(error).__name__, error,
            )  # fmt: skip
        results: list[InferResponse | Exception] = []
        for call in batch:
            results.append(await self._alone(call))
            call.tell(results[-1])
            if not self._is_plain():
                await asyncio.sleep(0)
        return results

    async def _alone(self, call: Call) -> InferResponse | Exception:
        if call.is_over or (call.deadline is not None and call.deadline <= time.monotonic()):
            return Expired()
        try:
            return await self._predicted(call.request)
        except Exception as error:
            return error

    async def _predicted(self, request: InferRequest) -> InferResponse:
        model = self._model
        if model.in_thread:
            return checked(await predicted(model, request), model.name)
        response: Any = model.predict(request)
        self._is_immediate = isinstance(response, InferResponse) or not hasattr(response, "__await__")
        return checked(response if self._is_immediate else await response, model.name)

    async def close(self) -> None:
        """Ends the worker; what still waits is told so (503)."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._abandon(self._queue)
        self._queue.clear()


async def predicted(model: Model, request: InferRequest) -> Any:
    """What `predict` returns, awaited if it can be, from a worker thread if the model says so."""
    response: Any
    if model.in_thread:
        from anyio import to_thread  # costs 15 ms, which only slow models pay

        response = await to_thread.run_sync(model.predict, request)
    else:
        response = model.predict(request)
    return await response if hasattr(response, "__await__") else response


def checked(response: Any, model_name: str) -> InferResponse:
    """The response. Raises InferenceError (500) where a model answered with something else."""
    if not isinstance(response, InferResponse):
        found = f"{type(response).__module__}.{type(response).__qualname__}"
        raise InferenceError(
            f"model {model_name!r} answered with {found}, expected glowplug.serving.InferResponse", code=500
        )
    return response
