"""Container output: kept, rotated, read back and followed."""

from __future__ import annotations

import asyncio
import re

import pytest
from unit.supervisor.machine import Machine, a_pod, echo, running

from glowplug.errors import BadRequest, NotFound
from glowplug.spec.kinds import POD
from glowplug.supervisor.log_file import ContainerLog
from glowplug.supervisor.log_reader import LogQuery, read_log


def new_log(folder, max_bytes=10_000_000, max_files=3) -> ContainerLog:
    return ContainerLog(folder, 0, max_bytes=max_bytes, max_files=max_files)


async def text_of(log: ContainerLog, live: bool = True, **query) -> str:
    chunks = [each async for each in read_log(log.path, log if live else None, LogQuery(**query))]
    return b"".join(chunks).decode()


async def test_lines_come_back_as_written(tmp_path):
    log = new_log(tmp_path)
    log.write(b"one\ntw")
    log.write(b"o\n\nfour")
    assert await text_of(log) == "one\ntwo\n\n"
    log.close()
    assert await text_of(log) == "one\ntwo\n\nfour\n"
    assert await text_of(log, tail_lines=2) == "\nfour\n"
    assert await text_of(log, tail_lines=0) == ""
    assert await text_of(log, since="2999-01-01T00:00:00.000000000Z") == ""
    stamped = await text_of(log, has_timestamps=True, tail_lines=1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z four\n", stamped)


async def test_a_huge_line_is_whole_again_and_costs_no_memory(tmp_path):
    log = new_log(tmp_path)
    for _ in range(50):
        log.write(b"x" * 65536)
    assert len(log._splitter._rest) < 16384
    log.write(b"\nnext\n")
    log.close()
    text = await text_of(log)
    assert text == "x" * (50 * 65536) + "\nnext\n"
    assert await text_of(log, tail_lines=1) == "next\n"
    stamped = await text_of(log, has_timestamps=True)
    assert stamped.count("Z x") == 1
    assert len(log.tail()) <= 4096


async def test_rotation_keeps_the_newest(tmp_path):
    log = new_log(tmp_path, max_bytes=2000, max_files=3)
    for number in range(500):
        log.write(b"line %05d\n" % number)
    log.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0.log", "0.log.1", "0.log.2"]
    assert all(each.stat().st_size <= 2000 for each in tmp_path.iterdir())
    lines = (await text_of(log)).splitlines()
    first = int(lines[0].split()[1])
    assert lines == [f"line {number:05d}" for number in range(first, 500)]
    assert 80 <= len(lines) <= 150
    assert await text_of(log, tail_lines=60) == "".join(f"line {each:05d}\n" for each in range(440, 500))


async def test_following_across_rotations_loses_nothing(tmp_path):
    log = new_log(tmp_path, max_bytes=3000, max_files=20)
    log.write(b"0\n1\n")
    reading = asyncio.create_task(text_of(log, is_followed=True))
    for number in range(2, 600):
        log.write(b"%d\n" % number)
        if number % 7 == 0:
            await asyncio.sleep(0)
    log.close()
    text = await asyncio.wait_for(reading, 10)
    assert text == "".join(f"{number}\n" for number in range(600))
    assert log.generation > 3


async def test_a_full_disk_does_not_reach_the_container(tmp_path, monkeypatch):
    log = new_log(tmp_path)

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    log._file.close()
    log._file = Full()
    log.write(b"still readable\n")
    assert log.tail() == "still readable"
    log.close()


async def test_logs_of_a_pod(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("one", echo(environ={"GREETING": "hello"})))
        await machine.ready("one")
        await machine.until(
            lambda: "hello" in machine.supervisor._find("default", "one").logs.current("main").tail()
        )
        assert await machine.logs("one", None) == "listening hello\n"
        following = asyncio.create_task(machine.logs("one", follow=True, tail_lines=0))
        await asyncio.sleep(0)
        with pytest.raises(BadRequest, match="previous terminated container"):
            machine.supervisor.read("default", "one", "main", previous=True)
        with pytest.raises(BadRequest, match="container other is not valid for pod one"):
            machine.supervisor.read("default", "one", "other")
        with pytest.raises(NotFound):
            machine.supervisor.read("default", "two", "main")
        machine.objects.delete(POD, "default", "one")
        assert await asyncio.wait_for(following, 5) == "bye\n"


async def test_a_container_must_be_named_where_there_are_two(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("two", {"name": "a", "image": "x"}, {"name": "b", "image": "y"}))
        await machine.until(lambda: machine.supervisor._pods, "seen")
        with pytest.raises(BadRequest, match=r"choose one of: \[a b\]"):
            machine.supervisor.read("default", "two")
        with pytest.raises(BadRequest, match='container "a" in pod "two" is waiting to start'):
            machine.supervisor.read("default", "two", "a")
