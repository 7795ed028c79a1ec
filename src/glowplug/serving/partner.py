"""How a transformer under a pair lock finds its predictor among the revisions that traffic is split over.

Knative sends a request with `Knative-Serving-Tag` to the revision of that tag. Which tag is the partner's changes in a
rollout: `latest` at first, `prev` once there is a newer one, none at all at its end. So the tag that led to the partner
last is used until the answer says that it leads elsewhere; then the others are tried. A refusal costs a round trip and
no prediction, and in between every request takes one.

A tag that does not exist, or an ingress that does not know the header, is no error: the request goes by weight then,
and what counts is who answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from glowplug.errors import InferenceError
from glowplug.serving.pair import ANY, LATEST, PREVIOUS, NoPartner, OtherPair, PartnersError
from glowplug.spec import names

_T = TypeVar("_T")
Send = Callable[[Mapping[str, str]], Awaitable[_T]]

_TAGS = (LATEST, PREVIOUS, "")


class Partner:
    """The way to one transformer's partner.

    `send` and `ask` call the predictor with the headers that they are given; what is asked costs nothing there.
    """

    def __init__(self, pair: str) -> None:
        self._pair = pair
        # The tag that led to the partner last.
        self._tag: str | None = None
        self._locating = asyncio.Lock()

    async def reach(self, send: Send[_T], ask: Send[object]) -> _T:
        """The partner's answer. Raises NoPartner, or what the call to the partner raised."""
        if self._tag is None:
            await self._locate(ask)
        first = self._tag or ""
        met: dict[str, str] = {}
        away: InferenceError | None = None
        for tag in (first, *(tag for tag in _TAGS if tag != first)):
            try:
                answer = await send(self._headers(tag, self._pair))
            except OtherPair as error:
                met[tag] = error.pair
            except InferenceError as error:
                if not _may_be_elsewhere(error):
                    self._tag = None if _is_unanswered(error) else tag
                    raise
                away = away or error
            else:
                self._tag = tag
                return answer
        if away is not None:
            raise away
        self._tag = None
        raise NoPartner(self._pair, _told(met))

    async def find(self, ask: Send[object]) -> None:
        """Finds out how the partner is reached, unless that is known. Raises NoPartner, or what `ask` raised."""
        if self._tag is None:
            await self._locate(ask)

    async def _locate(self, ask: Send[object]) -> None:
        async with self._locating:
            if self._tag is None:
                self._tag = await self._found(ask)

    async def _found(self, ask: Send[object]) -> str:
        """Asks under all tags at once, so that none that is cold keeps the others waiting, until one is the partner."""
        asked = {asyncio.create_task(self._met(tag, ask), name=f"ask predictor {tag}"): tag for tag in _TAGS}
        waiting = set(asked)
        met: dict[str, str] = {}
        away: InferenceError | None = None
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                # In the order of the tags, where several answer at once.
                for task in sorted(done, key=lambda task: _TAGS.index(asked[task])):
                    try:
                        met[asked[task]] = task.result()
                    except InferenceError as error:
                        away = away or error
                    else:
                        if task.result() == self._pair:
                            return asked[task]
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        if away is not None:
            raise away
        raise NoPartner(self._pair, _told(met))

    async def _met(self, tag: str, ask: Send[object]) -> str:
        """The pair of whoever answers under a tag; empty for one that does not say."""
        try:
            await ask(self._headers(tag, ANY))
        except OtherPair as error:
            return error.pair
        return ""

    def _headers(self, tag: str, pair: str) -> dict[str, str]:
        headers = {names.PAIR_HEADER: pair}
        if tag:
            headers[names.TAG_HEADER] = tag
        return headers


def _may_be_elsewhere(error: InferenceError) -> bool:
    """Whether the ingress may have said so of a revision that is not the partner."""
    return error.code == 503 and not isinstance(error, PartnersError)


def _is_unanswered(error: InferenceError) -> bool:
    """Whether the tag may lead to another revision by now, one that is cold and keeps all requests waiting."""
    return error.code == 504 and not isinstance(error, PartnersError)


def _told(met: Mapping[str, str]) -> str:
    parts = [
        f"{tag or 'without a tag'!s} leads to {repr(pair) if pair else 'one that does not say its pair'}"
        for tag, pair in met.items()
    ]
    return ", ".join(parts)
