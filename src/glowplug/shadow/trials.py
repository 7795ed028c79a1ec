"""Takes copies, sends each request to the revision that is tried, compares the two answers.

Nobody waits for this: what cannot be kept up with is dropped and counted. A revision that hangs holds up its own
requests and those of no other.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

import anyio
from anyio.abc import TaskGroup

from glowplug.copies.copies import GivenUp
from glowplug.copies.exchange import Exchange, Message
from glowplug.copies.inference import is_inference
from glowplug.shadow.comparing import Comparison, Outcome, compare
from glowplug.shadow.config import ShadowConfig
from glowplug.shadow.differences import Tolerance
from glowplug.shadow.sender import AnswerTooLarge, NoAnswer, Sender, path_of
from glowplug.shadow.tally import Notice, Pair, Tally, Times
from glowplug.spec import names

_LOG = logging.getLogger(__name__)
# The same to the caller's answer as names.POD_TIME_HEADER to a shadow's; Envoy's own name.
_POD_TIME = "x-envoy-upstream-service-time"
_OF_GIVEN_UP = {
    GivenUp.TOO_LARGE: Outcome.TOO_LARGE,
    GivenUp.NO_ROOM: Outcome.DROPPED,
    GivenUp.CUT: Outcome.CUT,
}


@dataclass
class _Line:
    """The requests for one revision."""

    waiting: deque[Exchange] = field(default_factory=deque)
    workers: int = 0


class Trials:
    """The consumer of the copies. `run` owns the tasks; `notify` is told what somebody should look at."""

    def __init__(
        self, config: ShadowConfig, sender: Sender, tally: Tally, notify: Callable[[Notice], None]
    ) -> None:
        self._config = config
        self._sender = sender
        self._tally = tally
        self._notify = notify
        self._tolerance = Tolerance(config.relative_tolerance, config.absolute_tolerance)
        self._lines: dict[str, _Line] = {}
        self._waiting_bytes = 0
        self._tasks: TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await anyio.sleep_forever()

    def wants(self, about: Mapping[str, str], request: Mapping[str, str]) -> bool:
        """Inference only, and while there is room for it."""
        if names.COPY_SHADOW not in about or not is_inference(about, request):
            return False
        line = self._lines.get(about[names.COPY_SHADOW])
        is_full = line is not None and len(line.waiting) >= self._config.max_waiting
        if is_full or self._waiting_bytes > self._config.max_held_bytes or self._tasks is None:
            self._tally.count(_pair(about), Outcome.DROPPED)
            return False
        return True

    def copied(self, exchange: Exchange) -> None:
        """Another one to be tried."""
        shadow = exchange.about[names.COPY_SHADOW]
        line = self._lines.setdefault(shadow, _Line())
        if len(line.waiting) >= self._config.max_waiting or self._tasks is None:
            self._tally.count(_pair(exchange.about), Outcome.DROPPED)
            return
        line.waiting.append(exchange)
        self._waiting_bytes += _size(exchange)
        # Copies come several at once. Tried one after another they leave a caller who comes meanwhile the most.
        wanted = 1 + len(line.waiting) // self._config.waiting_per_worker
        if line.workers < min(wanted, self._config.concurrency):
            line.workers += 1
            self._tasks.start_soon(self._work, line, name=f"shadow {shadow}")

    def given_up(self, about: Mapping[str, str], why: GivenUp) -> None:
        """One that will not come."""
        self._tally.count(_pair(about), _OF_GIVEN_UP[why])

    async def _work(self, line: _Line) -> None:
        try:
            while line.waiting:
                exchange = line.waiting.popleft()
                self._waiting_bytes -= _size(exchange)
                await self._try(exchange)
        finally:
            line.workers -= 1

    async def _try(self, exchange: Exchange) -> None:
        times = None
        try:
            answer = await self._sender.send(exchange)
        except NoAnswer as error:
            comparison = Comparison(Outcome.FAILED, str(error))
        except AnswerTooLarge:
            comparison = Comparison(Outcome.TOO_LARGE)
        else:
            comparison = self._compare(exchange, answer)
            times = _times(exchange.answer, answer)
        notice = self._tally.add(
            _pair(exchange.about), comparison, now=time.monotonic(), times=times, shown=_shown(exchange)
        )
        if notice is not None:
            self._notify(notice)

    def _compare(self, exchange: Exchange, answer: Message) -> Comparison:
        if not answer.headers.get(names.POD_TIME_HEADER, "").isdecimal():
            # The ingress itself has answered: no pod did.
            return Comparison(Outcome.FAILED, _first_line(answer))
        try:
            return compare(path_of(exchange), exchange.answer, answer, self._tolerance)
        except Exception:
            # What a model may answer is without end; one that trips us up must not end the others' comparisons.
            _LOG.exception("two answers of %s could not be compared", exchange.about.get(names.COPY_SERVICE))
            return Comparison(Outcome.NOT_COMPARABLE)


def _pair(about: Mapping[str, str]) -> Pair:
    return Pair(*(about.get(key, "") for key in (names.COPY_SERVICE, names.COPY_REVISION, names.COPY_SHADOW)))


def _times(ours: Message, theirs: Message) -> Times | None:
    texts = (ours.headers.get(_POD_TIME, ""), theirs.headers.get(names.POD_TIME_HEADER, ""))
    return Times(*(int(text) / 1e3 for text in texts)) if all(map(str.isdecimal, texts)) else None


def _shown(exchange: Exchange) -> dict[str, str]:
    """What tells a person which request it was; nothing of its content, which may be anybody's."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "id": exchange.request.headers.get("x-request-id", ""),
        "path": path_of(exchange).partition("?")[0],
    }


def _first_line(answer: Message) -> str:
    text = answer.headers.get("grpc-message") or answer.body[:200].decode("utf-8", "replace").split("\n")[0]
    return f"status {answer.headers.get(':status', '?')}: {text}".strip(": ")


def _size(exchange: Exchange) -> int:
    return len(exchange.request.body) + len(exchange.answer.body)
