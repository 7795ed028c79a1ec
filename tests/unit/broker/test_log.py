"""The log against a model of it: what was committed is there, whatever happens in between."""

from __future__ import annotations

import pathlib
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from glowplug.broker.log import Log
from glowplug.broker.records import Entry, Page, Pending, Record
from glowplug.broker.verdict import Failure
from glowplug.errors import ConfigError, DataDirHeld
from glowplug.wire.events import CloudEvent

BROKER = ("default", "b")
TRIGGERS = [("default", "b", "one"), ("default", "b", "two")]
PAGE = Page(1000, 2**30)


def entry(number: int, data: bytes | None = b"{}") -> Entry:
    return Entry.of(float(number), 255, CloudEvent({"id": str(number), "sampled": True}, data))


class LogMachine(RuleBasedStateMachine):
    """Appends, settles, notes, trims; and now and then the file is closed or a transaction is rolled back."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name) / "events.db"
        self.log = Log.open(self.path)
        self.events: list[int] = []
        self.last = 0
        self.positions: dict[tuple[str, str, str], int] = {}
        self.pending: dict[tuple[str, str, str], dict[int, tuple[int, float]]] = {}

    def teardown(self) -> None:
        self.log.database.close()
        self.folder.cleanup()

    def commit(self, work: object) -> object:
        assert callable(work)
        self.log.database.execute("BEGIN IMMEDIATE")
        found = work()
        self.log.database.execute("COMMIT")
        return found

    @rule(count=st.integers(1, 5))
    def append(self, count: int) -> None:
        first = self.commit(lambda: self.log.append(BROKER, [entry(self.last + 1 + n) for n in range(count)]))
        assert first == self.last + 1
        self.events += range(self.last + 1, self.last + count + 1)
        self.last += count

    @rule(count=st.integers(1, 3))
    def roll_back(self, count: int) -> None:
        self.log.database.execute("BEGIN IMMEDIATE")
        self.log.append(BROKER, [entry(0)] * count)
        for trigger in self.positions:
            self.log.settle(trigger, self.last + count, ())
        self.log.database.execute("ROLLBACK")
        self.log.load()

    @rule(trigger=st.sampled_from(TRIGGERS))
    def begin(self, trigger: tuple[str, str, str]) -> None:
        state = self.commit(lambda: self.log.cursor(trigger))
        assert state.position == self.positions.setdefault(trigger, self.last)  # type: ignore[attr-defined]
        own = self.pending.setdefault(trigger, {})
        assert state.pending == len(own)  # type: ignore[attr-defined]
        assert state.due_at == min((at for _, at in own.values()), default=None)  # type: ignore[attr-defined]
        assert state.ahead == {seq for seq in own if seq > state.position}  # type: ignore[attr-defined]

    @precondition(lambda self: self.positions)
    @rule(data=st.data())
    def note_and_settle(self, data: st.DataObject) -> None:
        trigger = data.draw(st.sampled_from(sorted(self.positions)))
        open_ones = [seq for seq in self.events if seq > self.positions[trigger]]
        own = self.pending[trigger]
        if open_ones and data.draw(st.booleans()):
            seq = data.draw(st.sampled_from(open_ones))
            attempts, at = data.draw(st.integers(0, 3)), float(data.draw(st.integers(0, 9)))
            item = Pending(
                Record(seq, seq, 255, CloudEvent({}), 0), attempts, at, False, Failure(500, b"x"), "u"
            )
            self.commit(lambda: self.log.put_pending(trigger, item))
            own[seq] = (attempts, at)
        over = [seq for seq in own if data.draw(st.booleans())]
        position = data.draw(st.integers(self.positions[trigger], self.last))
        self.commit(lambda: self.log.settle(trigger, position, over))
        self.positions[trigger] = position
        for seq in over:
            del own[seq]

    @rule(trigger=st.sampled_from(TRIGGERS))
    def drop(self, trigger: tuple[str, str, str]) -> None:
        self.commit(lambda: self.log.drop_cursor(trigger))
        self.positions.pop(trigger, None)
        self.pending.pop(trigger, None)

    @rule(kept=st.integers(0, 6))
    def trim(self, kept: int) -> None:
        self.commit(lambda: self.log.trim(kept, 2**30))
        limit = min([self.last - kept, *self.positions.values()])
        needed = {seq for own in self.pending.values() for seq in own}
        self.events = [seq for seq in self.events if seq > limit or seq in needed]

    @rule()
    def reopen(self) -> None:
        self.log.database.close()
        self.log = Log.open(self.path)

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        assert [record.seq for record in self.log.page(BROKER, 0, PAGE)] == self.events
        for trigger, own in self.pending.items():
            due = self.log.due(trigger, 4.0, (), PAGE, in_order=False)
            assert {item.record.seq: item.attempts for item in due.items} == {
                seq: attempts for seq, (attempts, at) in own.items() if at <= 4
            }
            assert due.next_at == min((at for _, at in own.values() if at > 4), default=None)
            assert due.oldest_at == min(own, default=None)


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.fixture
def log(tmp_path: pathlib.Path) -> Log:
    return Log.open(tmp_path / "events.db")


def test_an_event_is_what_it_was(log: Log) -> None:
    data = b'{"big": 123456789012345678901234567890}'
    log.append(BROKER, [entry(1, data), entry(2, None)])
    first, second = log.page(BROKER, 0, PAGE)
    assert first.event == CloudEvent({"id": "1", "sampled": True}, data)
    assert (second.event.data, second.ttl) == (None, 255)
    log.database.close()


def test_a_page_is_bounded_in_bytes(log: Log) -> None:
    log.append(BROKER, [entry(number, bytes(1000)) for number in range(10)])
    assert len(log.page(BROKER, 0, Page(100, 2500))) == 3
    assert len(log.page(BROKER, 0, Page(100, 1))) == 1
    assert len(log.page(BROKER, 8, Page(100, 10**6))) == 2
    assert log.page(("default", "other"), 0, PAGE) == []
    log.database.close()


def test_dead_letters_are_kept_up_to_a_number(log: Log) -> None:
    log.append(BROKER, [entry(number) for number in range(1, 6)])
    log.cursor(TRIGGERS[0])
    for record in log.page(BROKER, 0, PAGE):
        log.bury(TRIGGERS[0], Pending(record, 0, 0.0, False, Failure(400, b"no"), "u"), 9.0, 3)
    found = log.dead_letters(BROKER, 0, PAGE)
    assert [letter.event.text("id") for letter in found] == ["3", "4", "5"]
    assert (found[0].trigger, found[0].failure, found[0].destination) == ("one", Failure(400, b"no"), "u")
    assert [letter.id for letter in log.dead_letters(BROKER, found[1].id, PAGE)] == [found[2].id]
    log.database.close()


def test_a_broker_that_is_made_anew_has_nothing_of_the_old_one(log: Log) -> None:
    log.append(BROKER, [entry(1)])
    log.cursor(TRIGGERS[0])
    log.drop_broker(BROKER)
    assert log.page(BROKER, 0, PAGE) == []
    assert log.cursors() == []
    assert log.append(BROKER, [entry(7)]) == 1
    log.trim(0, 2**30)
    assert log.cursor(TRIGGERS[0]).position == 1
    log.database.close()


def test_one_process_has_it(log: Log, tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataDirHeld, match="another process"):
        Log.open(tmp_path / "events.db")
    log.database.close()
    (tmp_path / "other.db").write_bytes(b"no database, but long enough to be taken for one" * 100)
    with pytest.raises(ConfigError, match="cannot be opened as an event log"):
        Log.open(tmp_path / "other.db")
