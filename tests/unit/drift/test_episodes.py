"""One event an episode, whatever the windows do."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.drift.config import DriftConfig
from glowplug.drift.episodes import Episodes, decide, episode_id
from glowplug.errors import ConfigError

DAY_S = 86400.0
verdicts = st.lists(
    st.sampled_from([(True, False), (False, False), (False, True), (None, False)]), max_size=120
)
configs = st.builds(
    lambda needed, more, calm, cool: DriftConfig(
        needed=needed, of=needed + more, calm=calm, cool_down_s=cool * DAY_S
    ),
    st.integers(1, 4), st.integers(0, 3), st.integers(1, 5), st.integers(0, 10),
)  # fmt: skip


def run(found, config):
    """(day, opened, closed) of each window that opened or closed one."""
    state, changes = Episodes(), []
    for day, (is_drifted, is_calm) in enumerate(found):
        state, decision = decide(state, is_drifted, is_calm, day * DAY_S, config)
        if decision.opened or decision.closed:
            changes.append((day, decision.opened, decision.closed))
    return state, changes


@given(verdicts, configs)
def test_episodes_open_for_cause_close_in_calm_and_never_overlap(found, config) -> None:
    state, changes = run(found, config)
    # Turn about, opened first.
    assert [opened for _, opened, _ in changes] == [place % 2 == 0 for place in range(len(changes))]
    assert state.number == sum(opened for _, opened, _ in changes)
    assert state.is_open == (len(changes) % 2 == 1)
    for (earlier, _, closed), (later, opened, _) in itertools.pairwise(changes):
        if closed:
            assert later - earlier >= config.cool_down_s / DAY_S
        if opened is False:
            assert later - earlier >= config.calm
    for day, opened, closed in changes:
        known = [verdict for verdict in found[: day + 1] if verdict[0] is not None]
        if opened:
            assert sum(is_drifted for is_drifted, _ in known[-config.of :]) >= config.needed
        if closed:
            assert known[-config.calm :] == [(False, True)] * config.calm


@given(verdicts, configs)
def test_too_little_to_say_changes_nothing(found, config) -> None:
    config = dataclasses.replace(config, cool_down_s=0)
    _, with_them = run(found, config)
    _, without = run([verdict for verdict in found if verdict[0] is not None], config)
    assert len(with_them) == len(without)


def test_flickering_around_the_limit_is_one_episode() -> None:
    found = [(True, False), (False, False)] * 50
    _, changes = run(found, DriftConfig(needed=3, of=5, calm=5))
    assert len(changes) == 1


def test_after_an_episode_there_is_a_while_without_one() -> None:
    bad, good = [(True, False)] * 3, [(False, True)] * 5
    _, changes = run(bad + good + bad * 5, DriftConfig(cool_down_s=7 * DAY_S))
    assert changes == [(2, True, False), (7, False, True), (14, True, False)]


def test_a_single_bad_window_is_none() -> None:
    _, changes = run([(False, True)] * 10 + [(True, False)] * 2 + [(False, True)] * 10, DriftConfig())
    assert changes == []


def test_the_id_is_the_episodes_and_the_models() -> None:
    state = Episodes(is_open=True, number=2, opened_at=1000.0)
    first = episode_id("default", "flights", "abc", state)
    assert first == episode_id("default", "flights", "abc", dataclasses.replace(state, calm=3))
    others = [
        episode_id("default", "flights", "abd", state),
        episode_id("other", "flights", "abc", state),
        episode_id("default", "flights", "abc", dataclasses.replace(state, number=3)),
    ]
    assert len({first, *others}) == 4


def test_numbers_that_make_no_sense_are_all_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        DriftConfig(needed=6, slots=0, level=2.0).checked()
    assert all(name in caught.value.message for name in ("needed = 6", "slots = 0", "level = 2.0"))


def test_the_lower_limits_are_lower() -> None:
    strict, relaxed = DriftConfig(), DriftConfig().relaxed()
    assert relaxed.min_error_ratio == pytest.approx(1.4)
    for name in ("min_psi", "min_ks", "min_missing", "min_share", "min_unfit"):
        assert getattr(relaxed, name) < getattr(strict, name)
    assert relaxed.level > strict.level
