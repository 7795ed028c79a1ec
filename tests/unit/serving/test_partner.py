"""How a transformer finds its partner: which tags are tried, in which order, and what is never sent twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import pytest

from glowplug.errors import InferenceError
from glowplug.serving.pair import NoPartner, OtherPair, PartnersError
from glowplug.serving.paired import Pair
from glowplug.serving.partner import Partner


class Ingress:
    """Tags to pairs; `None` is a tag whose revision is not there, and a tag that is missing goes by `weights`."""

    def __init__(self, weights: Mapping[str, float], tags: Mapping[str, str | None] | None = None) -> None:
        self.weights = weights
        self.tags = dict(tags or {})
        self.calls: list[tuple[str, str]] = []
        self.slow: set[str] = set()
        self._random = random.Random(1)

    async def call(self, headers: Mapping[str, str]) -> str:
        asked, tag = headers["glowplug-pair"], headers.get("knative-serving-tag", "")
        self.calls.append((asked, tag))
        await asyncio.sleep(3600 if tag in self.slow else 0)
        met = self.tags[tag] if tag in self.tags else self._weighted()
        if met is None:
            raise InferenceError("no healthy upstream", code=503)
        if met and met != asked:
            raise OtherPair("refused", met)
        return met

    def _weighted(self) -> str:
        return self._random.choices(list(self.weights), list(self.weights.values()))[0]

    async def reach(self, partner: Partner) -> str:
        return await partner.reach(self.call, self.call)


async def test_in_the_steady_state_every_request_is_one_call() -> None:
    ingress = Ingress({"a": 1}, {"latest": "a"})
    partner = Partner("a")
    await partner.find(ingress.call)
    ingress.calls.clear()
    for _ in range(5):
        assert await ingress.reach(partner) == "a"
    assert ingress.calls == [("a", "latest")] * 5


async def test_when_a_newer_one_comes_the_tag_changes_once() -> None:
    ingress = Ingress({"a": 1}, {"latest": "a"})
    partner = Partner("a")
    assert await ingress.reach(partner) == "a"
    ingress.weights = {"a": 90, "b": 10}
    ingress.tags = {"latest": "b", "prev": "a"}
    ingress.calls.clear()
    assert [await ingress.reach(partner) for _ in range(3)] == ["a"] * 3
    assert ingress.calls == [("a", "latest"), ("a", "prev"), ("a", "prev"), ("a", "prev")]


async def test_a_revision_that_is_cold_keeps_nobody_waiting_for_the_partner() -> None:
    ingress = Ingress({"a": 1}, {"latest": "b", "prev": "a", "": "a"})
    ingress.slow = {"latest"}
    partner = Partner("a")
    assert await asyncio.wait_for(ingress.reach(partner), 10) == "a"
    assert ("a", "latest") not in ingress.calls


async def test_no_partner_is_told_with_what_was_met() -> None:
    ingress = Ingress({"b": 1}, {"latest": "b", "prev": ""})
    with pytest.raises(
        NoPartner, match="latest leads to 'b', prev leads to one that does not say its pair"
    ) as caught:
        await ingress.reach(Partner("a"))
    assert caught.value.code == 503
    assert all(asked == "?" for asked, _ in ingress.calls), "no request may be tried on strangers"


async def test_what_went_away_is_found_again() -> None:
    ingress = Ingress({"a": 1}, {"latest": "a"})
    partner = Partner("a")
    await ingress.reach(partner)
    ingress.tags, ingress.weights = {"latest": "b"}, {"b": 1}
    with pytest.raises(NoPartner):
        await ingress.reach(partner)
    ingress.tags, ingress.weights = {"latest": "a"}, {"a": 1}
    assert await ingress.reach(partner) == "a"


async def test_a_crashed_canary_does_not_hide_the_partner() -> None:
    ingress = Ingress({"a": 1}, {"latest": "a"})
    partner = Partner("a")
    await ingress.reach(partner)
    ingress.tags = {"latest": None, "prev": "a"}
    assert await ingress.reach(partner) == "a"


async def test_who_waited_in_vain_looks_anew_next_time() -> None:
    ingress = Ingress({"a": 1}, {"latest": "a"})
    partner = Partner("a")
    assert await ingress.reach(partner) == "a"
    ingress.tags, ingress.slow = {"latest": "b", "prev": "a"}, {"latest"}

    async def too_slow(headers: Mapping[str, str]) -> str:
        try:
            return await asyncio.wait_for(ingress.call(headers), 0.05)
        except asyncio.TimeoutError:
            raise InferenceError("did not answer in time", code=504) from None

    with pytest.raises(InferenceError) as raised:
        await partner.reach(too_slow, too_slow)
    assert raised.value.code == 504
    assert await partner.reach(too_slow, too_slow) == "a"


async def test_the_partners_own_503_is_the_answer() -> None:
    ingress = Ingress({"a": 1}, {"latest": "a"})
    partner = Partner("a")
    await partner.find(ingress.call)
    sent = []

    async def overloaded(headers: Mapping[str, str]) -> str:
        sent.append(headers.get("knative-serving-tag"))
        raise PartnersError("too much", code=503)

    with pytest.raises(PartnersError):
        await partner.reach(overloaded, ingress.call)
    assert sent == ["latest"]


async def test_where_the_ingress_knows_no_tags_chance_finds_the_partner() -> None:
    ingress = Ingress({"a": 50, "b": 50})
    partner = Partner("a")
    found = []
    for _ in range(400):
        try:
            found.append(await ingress.reach(partner))
        except NoPartner:
            continue
    assert set(found) == {"a"}
    assert len(found) > 250


async def test_many_at_once_ask_once() -> None:
    ingress = Ingress({"a": 1}, {"latest": "a"})
    partner = Partner("a")
    await asyncio.gather(*(ingress.reach(partner) for _ in range(20)))
    assert sum(asked == "?" for asked, _ in ingress.calls) == 3


@pytest.mark.parametrize(
    ("own", "other", "is_older"),
    [
        ("f-transformer-00001", "f-transformer-00002", True),
        ("f-transformer-00009", "f-transformer-00010", True),
        ("f-transformer-00002", "f-transformer-00002", False),
        ("f-transformer-00003", "f-transformer-00002", False),
        ("f-transformer-00001", "g-transformer-00002", False),
        ("f-transformer-00001", "", False),
        ("", "f-transformer-00001", False),
        ("f-transformer-named", "f-transformer-00002", False),
    ],
)
def test_which_revision_is_older(own: str, other: str, is_older: bool) -> None:
    assert Pair("a", revision=own).is_older_than(other) is is_older
