"""The detector on made-up streams: quiet where nothing changes, one event where something does, labels joined once."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.drift.streams import NAMES, T0, event, label, predicted, profile, request, response, rows

from glowplug.drift.config import DriftConfig
from glowplug.drift.detector import DETECTED, Detector, Memory, Target
from glowplug.drift.exposition import exposition
from glowplug.drift.payloads import REQUEST
from glowplug.drift.store import Store

TARGET = Target("default", "flights", "flights-model")
BY_ROWS = DriftConfig(window_rows=1000, slots=4, needed=2, of=3, calm=3, cool_down_s=0)
PROFILE = profile()


def detector(config=BY_ROWS, store=None, found=PROFILE, **more):
    return Detector(TARGET, found, config, store or Store(None), **more)


def stream(count, *, shift=0.0, noise=1.0, per=50, first=0, seed=7, change=None, at=T0, labelled=True):
    """Requests of `per` rows with their answers and labels."""
    random = np.random.default_rng(seed + first)
    for number in range(first, first + count):
        features = rows(random, per, shift)
        answers = predicted(features)
        if change is not None:
            features = change(features)
        when = at + 60.0 * number
        yield request(f"r{number}", when, features)
        yield response(f"r{number}", when + 1, answers)
        if labelled:
            labels = answers + random.normal(0, noise, per)
            yield label(f"r{number}", when + 30, labels.tolist())


def put(found, events, received_at=T0 * 2):
    for each in events:
        found.take(each, received_at)
    return found


def told(store):
    return [json.loads(structured) for _, structured in store.posted()]


def test_a_stream_like_the_training_is_quiet() -> None:
    seen = []
    found = put(detector(on_judged=seen.append), stream(200))
    assert found.counts["windows"] == 39 - 4 + 1
    assert all(judged.verdict.is_drifted is False and judged.verdict.is_calm for judged in seen)
    assert told(found._store) == []


@pytest.mark.parametrize(
    ("what", "changes", "part"),
    [
        ("error", {"noise": 3.0}, "error"),
        ("prediction", {"shift": 1.0}, "prediction"),
        (
            "missing",
            {"change": lambda x: np.where(np.arange(3) == 1, np.nan, x).astype(np.float32)},
            "features",
        ),
        ("schema", {"change": lambda x: x[:, :2]}, "features"),
    ],
)
def test_each_kind_of_drift_is_one_event(what, changes, part) -> None:
    store = Store(None)
    found = put(detector(store=store), stream(60))
    put(found, stream(120, first=60, **changes))
    (event,) = told(store)
    data = event["data"]
    assert event["type"] == DETECTED
    assert event["source"] == "/glowplug/drift/default/flights"
    assert (event["subject"], event["model"], data["model"]) == ("flights", "flights-model", "flights-model")
    assert (data["inferenceservice"], data["namespace"], data["episode"]) == ("flights", "default", 1)
    assert data["reference"] == {
        "rows": 20000, "from": "2026-01-01T00:00:00.000Z", "to": "2026-02-10T00:00:00.000Z",
    }  # fmt: skip
    assert data["window"]["rows"] >= 200
    assert data["window"]["from"] < data["window"]["to"] <= data["detected_at"]
    if part == "features":
        assert what in {feature["test"] for feature in data["features"]}
        assert all(feature["statistic"] >= feature["threshold"] for feature in data["features"])
    else:
        assert data[part]["drifted"]
    assert found.episodes.is_open


def test_one_feature_of_many_is_told_and_is_no_alarm_by_itself() -> None:
    config = DriftConfig(window_rows=1000, slots=4, needed=2, of=3, min_share=0.5)
    seen = []
    change = lambda x: x + np.float32([0, 0, 0.8])  # noqa: E731
    found = put(detector(config, on_judged=seen.append), stream(200, change=change))
    assert {finding.name for judged in seen for finding in judged.verdict.features} == {"c"}
    assert not found.episodes.is_open
    weighty = detector(config, found=profile(importance=[0.1, 0.1, 0.8]))
    assert put(weighty, stream(200, change=change)).episodes.is_open


def test_an_episode_ends_and_the_next_one_is_another() -> None:
    store = Store(None)
    found = put(detector(store=store), stream(100, noise=3.0))
    assert found.episodes.is_open
    put(found, stream(100, first=100))
    assert not found.episodes.is_open
    put(found, stream(100, first=200, noise=3.0))
    events = told(store)
    assert [event["data"]["episode"] for event in events] == [1, 2]
    assert len({event["id"] for event in events}) == 2


def test_windows_by_time_follow_the_events_own_time_and_a_clock_ahead_closes_none() -> None:
    config = DriftConfig(window_s=4 * 3600, slots=4, min_rows=50, min_labels=50)
    found = detector(config)
    put(found, stream(600, per=5))  # ten hours, a request a minute; the tenth has no event behind it
    assert found.counts["windows"] == 9 - 4 + 1
    before = found.counts["windows"]
    ahead = request("ahead", T0 + 10 * 365 * 86400, rows(np.random.default_rng(1), 5))
    found.take(ahead, received_at=T0 + 599 * 60)
    assert found.counts["windows"] == before
    late = request("late", T0 - 86400, rows(np.random.default_rng(1), 5))
    found.take(late, received_at=T0 + 599 * 60)
    assert found.counts["windows"] == before
    # A silence of ten years costs no more than a window of it.
    found.take(request("later", T0 + 10 * 365 * 86400, rows(np.random.default_rng(1), 5)), received_at=T0 * 2)
    assert found.counts["windows"] <= before + 10
    assert found.last is not None
    assert found.last.verdict.is_drifted is None


def test_repetitions_strangers_and_others_count_nothing() -> None:
    found = detector()
    first = request("r1", T0, rows(np.random.default_rng(1), 5))
    assert found.take(first, T0) == "request"
    assert found.take(first, T0) == "repeated"
    other = first.with_attributes(id="r2", inferenceservicename="taxis")
    assert found.take(other, T0) == "ignored"
    assert found.take(first.with_attributes(id="r2", type="dev.knative.ping"), T0) == "ignored"
    assert found.take(first.with_attributes(id="r2", component="transformer"), T0) == "ignored"
    assert found.take(first.with_attributes(id="r2", component="predictor"), T0) == "request"
    assert found.take(event(REQUEST, "r3", T0, b"<html>"), T0) == "unfit"


@settings(max_examples=60)
@given(st.permutations(list(range(6))), st.integers(0, 2**32 - 1))
def test_labels_join_once_in_any_order_in_parts_and_twice(order, seed) -> None:
    """Three rows; labels of two events of parts, one of them sent again under another id."""
    random = np.random.default_rng(seed)
    values = random.normal(size=3).astype(np.float32)
    actual = random.normal(size=3)
    attributes = {"metadata": '{"Knative-Serving-Revision": ["flights-00001"]}'}
    events = [
        request("r", T0, rows(random, 3), **attributes),
        response("r", T0, values, **attributes),
        label("r", T0, [actual[0], None, None], id="l1"),
        label("r", T0, [None, actual[1], actual[2]], id="l2"),
        label("r", T0, [actual[0], None, None], id="l3"),
        label("r", T0, [actual[0], None, None], id="l1"),
    ]
    found = detector()
    put(found, [events[place] for place in order])
    # Labels that come before their prediction wait, the newest of them; after it, each is joined as it comes.
    early = [place for place in order[: order.index(1)] if place > 1]
    late = [place for place in order[order.index(1) :] if place > 1]
    expected = set()
    for place in [*early[-1:], *late]:
        expected |= {1, 2} if place == 3 else {0}
    count, loss, squares = found.losses.get("flights-00001", [0, 0, 0])
    assert count <= 3
    if 3 in late or not early:
        errors = np.abs(values.astype(float) - actual)[sorted(expected)]
        assert count >= len(errors) - 1
    if order.index(1) < min(order.index(place) for place in (2, 3, 4, 5)):
        errors = np.abs(values.astype(float) - actual)
        assert count == 3
        assert loss == pytest.approx(errors.sum())
        assert squares == pytest.approx((errors**2).sum())


def test_early_labels_of_parts_are_put_together() -> None:
    found = detector()
    put(found, [label("r", T0, [1.0, None], id="l1"), label("r", T0, [None, 2.0], id="l2")])
    put(found, [response("r", T0, [1.5, 2.5])])
    assert found.losses[""] == pytest.approx([2, 1.0, 0.5])


def test_labels_find_their_request_by_its_id_and_by_the_events() -> None:
    found = detector()
    answer = response("own", T0, [1.0, 2.0]).with_attributes(id="event")
    put(found, [answer, label("event", T0, [2.0, None], id="l1"), label("own", T0, [None, 4.0], id="l2")])
    assert found.losses[""] == pytest.approx([2, 3.0, 5.0])
    assert found._store.count_waiting() == (0, 0)
    put(found, [response("short", T0, [1.0]), label("short", T0, [1.0, 2.0], id="l3")])
    assert found.counts["label_mismatched"] == 1


def test_what_waits_for_labels_is_bounded_and_expires() -> None:
    found = detector(memory=Memory(held_bytes=5000, early_labels=10, label_wait_s=3600))
    for number in range(100):
        put(found, [response(f"r{number}", T0 + number, [1.0] * 10)])
    waiting, _ = found._store.count_waiting()
    assert 10 < waiting < 25
    assert found.counts["forgotten"] == 100 - waiting
    put(found, [label(f"nobody{number}", T0, [1.0]) for number in range(30)])
    assert found._store.count_waiting()[1] == 10
    put(found, [response(f"later{number}", T0 + 7200 + number, [1.0]) for number in range(1000)])
    assert found._store.count_waiting()[1] == 0


def test_it_goes_on_where_it_stopped_whatever_was_lost(tmp_path) -> None:
    """Cut at any place, and what was not acknowledged sent again: the same as without a cut."""
    events = list(itertools.chain(stream(60, per=40), stream(60, first=60, per=40, noise=3.0)))
    whole_store = Store(None)
    whole = put(detector(store=whole_store), events)
    cut = np.random.default_rng(5).integers(1, len(events), 6)
    place = 0
    for number, stop in enumerate([*sorted(cut.tolist()), len(events)]):
        store = Store(tmp_path)
        found = detector(store=store)
        if number:
            assert found.counts
        with store.transaction():
            put(found, events[max(0, place - 3) : stop])
            found.save()
        if number % 2:
            # Taken, and never written: rolled back.
            with pytest.raises(ZeroDivisionError), store.transaction():
                put(found, events[stop : stop + 20])
                raise ZeroDivisionError
        place = stop
        final = told(store)
        state = (found.episodes, found.losses, found.counts["windows"]) if not number % 2 else None
        store.close()
    store = Store(tmp_path)
    again = detector(store=store)
    assert (again.episodes, again.losses, again.counts["windows"]) == (
        whole.episodes, whole.losses, whole.counts["windows"],
    )  # fmt: skip
    assert final == told(whole_store)
    assert len(final) == 1
    assert state is not None
    store.close()


def test_another_profile_begins_anew_and_keeps_what_waits_and_what_was_lost() -> None:
    store = Store(None)
    found = put(detector(store=store), stream(100, noise=3.0))
    found.save()
    put(found, [response("waits", T0, [1.0])])
    assert found.episodes.is_open
    losses = dict(found.losses)
    found.save()
    found.use(profile(seed=2))
    found.save()
    assert not found.episodes.is_open
    assert found.losses == losses
    assert found._store.count_waiting()[0] == 1
    assert store.slots() == []
    again = detector(store=store, found=profile(seed=2))
    assert again.episodes == found.episodes
    (first,) = told(store)
    put(found, stream(100, first=1000, noise=3.0))
    assert len(told(store)) == 2
    assert first["data"]["profile"] != told(store)[1]["data"]["profile"]


def test_the_counters_are_prometheus_text() -> None:
    found = put(detector(), stream(60, per=40))
    found.losses['a"b\\\n'] = [1.0, 2.0, 4.0]
    text = exposition(found, (3, 4), 5)
    assert (
        'glowplug_labelled_predictions_total{namespace="default",inferenceservice="flights",revision=""} 2400'
    ) in text
    assert 'revision="a\\"b\\\\\\n"} 2\n' in text
    assert (
        'glowplug_drift_events_total{namespace="default",inferenceservice="flights",outcome="request"} 60'
        in text
    )
    assert text.count("# TYPE glowplug_labelled_loss_squares_total counter") == 1
    prometheus = pytest.importorskip("prometheus_client.parser")
    families = {family.name for family in prometheus.text_string_to_metric_families(text)}
    assert {"glowplug_labelled_loss", "glowplug_drift_error_ratio", "glowplug_drift_episode_open"} <= families


def test_requests_in_other_forms_are_the_same_counts() -> None:
    features = rows(np.random.default_rng(2), 30)
    plain, binary = detector(), detector()
    put(plain, [request("r", T0, features)])
    put(binary, [request("r", T0, features, binary=True)])
    assert (plain._open.counts == binary._open.counts).all()
    assert plain._open.counts[0].sum() == 30
    assert len(NAMES) == len(plain._open.counts) - 1
