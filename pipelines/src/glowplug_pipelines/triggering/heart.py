"""The lease of a run renewed for as long as its work goes on, and the work stopped where the lease is gone.

The work blocks a thread; the lease is renewed beside it. A holder that cannot renew for the lease's whole duration
stops by itself, because somebody else may have begun: the two never both deploy.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from glowplug.errors import GlowplugError

from . import admission
from .admission import LeaseLost
from .keeper import Keeper
from .state import Running

T = TypeVar("T")
_log = logging.getLogger(__name__)
_BEATS = 3  # in the time that a lease lasts


class Heart:
    """Beats for one run. `clock` gives seconds since the epoch, for others to read; what counts is this loop's."""

    def __init__(self, keeper: Keeper, running: Running, lease_s: float, clock: Callable[[], float]) -> None:
        self._keeper, self._running, self._lease_s, self._clock = keeper, running, lease_s, clock
        self.is_stopped = threading.Event()

    async def beat(self) -> None:
        """Renews once. Raises LeaseLost, and what the API raises."""
        run, holder = self._running.run, self._running.holder
        await self._keeper.change(lambda state: (admission.renew(state, run, holder, self._clock()), None))

    async def during(self, work: Awaitable[T]) -> T:
        """What `work` gives, the lease held all the time. Raises LeaseLost, with the work cancelled, and its own."""
        working = asyncio.ensure_future(work)
        beating = asyncio.create_task(self._beats(), name=f"lease of {self._running.run}")
        try:
            await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            beating.result()  # raises why
            raise AssertionError("it beats until it fails")
        finally:
            self.is_stopped.set()
            for task in (working, beating):
                task.cancel()
            await asyncio.gather(working, beating, return_exceptions=True)

    async def _beats(self) -> None:
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(self._lease_s / _BEATS)
            asked = loop.time()
            try:
                await asyncio.wait_for(self.beat(), self._lease_s / _BEATS)
                renewed = asked
            except LeaseLost:
                raise
            except (GlowplugError, OSError, asyncio.TimeoutError, TimeoutError) as error:
                told = str(error) or type(error).__name__
                _log.warning("%s: the lease cannot be renewed: %s", self._running.run, told)
                if loop.time() + self._lease_s / _BEATS >= renewed + self._lease_s:
                    raise LeaseLost(f"{self._running.run}: the lease could not be renewed: {told}") from error


async def in_thread(work: Callable[[], T], name: str) -> T:
    """What `work` gives, from a thread that dies with the process: one that is to end must not wait for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
