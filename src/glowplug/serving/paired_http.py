"""The HTTP endpoints of a server under a pair lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glowplug.errors import InferenceError
from glowplug.serving.dataplane import DataPlane
from glowplug.serving.handing_on import HandingOn
from glowplug.serving.http import DirectCall, HttpEndpoints, HttpRequest, HttpResponse, error_response
from glowplug.serving.pair import REFUSED, NoPartner
from glowplug.serving.paired import Pair
from glowplug.serving.urgency import header_limit_s
from glowplug.spec import names


@dataclass(slots=True)
class _Stranded(HttpResponse):
    """The answer to a request whose pair has lost its predictor, unless somebody else can answer it."""

    model: str = ""
    protocol: str = ""


class LockedHttpEndpoints(HttpEndpoints):
    """Refuses what is meant for another pair, signs what it answers, and hands on what has lost its predictor."""

    def __init__(self, plane: DataPlane, *, pair: Pair, on: HandingOn | None, **more: Any) -> None:
        super().__init__(plane, **more)
        self._pair = pair
        self._on = on

    def begin(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> DirectCall | None:
        return None if self._is_refused(request) else super().begin(request, done)

    async def answer(self, request: HttpRequest) -> HttpResponse:
        if self._is_refused(request):
            return self._refused(request, self._pair.refusal(request.headers[names.PAIR_HEADER]))
        response = await super().answer(request)
        if isinstance(response, _Stranded):
            response = self._labelled(request, await self._elsewhere(request, response))
        return response

    def _is_refused(self, request: HttpRequest) -> bool:
        asked = request.headers.get(names.PAIR_HEADER)
        return asked is not None and asked != self._pair.id

    def _refused(self, request: HttpRequest, text: str) -> HttpResponse:
        response = error_response(InferenceError(text, code=REFUSED))
        response.headers.update(self._pair.signature())
        return self._labelled(request, response)

    def _labelled(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        # So that a partner's own 503 can be told from one of the ingress. What was handed on is signed already.
        response.headers.setdefault(names.PAIR_HEADER, self._pair.id)
        return super()._labelled(request, response)

    def _failed(self, name: str, protocol: str, error: Exception) -> HttpResponse:
        if not isinstance(error, NoPartner):
            return super()._failed(name, protocol, error)
        answer = error_response(error)
        return _Stranded(answer.status, answer.body, answer.headers, name, protocol)

    async def _elsewhere(self, request: HttpRequest, stranded: _Stranded) -> HttpResponse:
        response: HttpResponse = stranded
        if names.PAIR_HANDED_ON_HEADER in request.headers:
            # Whoever handed it on knows whom else to ask.
            response = self._refused(request, "no predictor of this pair can be reached")
        elif self._on is not None:
            try:
                with self._plane.admitted():
                    response = await self._on.http(request, header_limit_s(request.headers)) or stranded
            except InferenceError as error:
                response = error_response(error)
        self._plane.count(stranded.model, stranded.protocol, str(response.status))
        return response
