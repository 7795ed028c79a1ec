"""The dead-letter sink as a process: what it keeps survives, what does not fit makes room, what is no event is
refused."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from units.hosted_process import HostedProcess

from glowplug.errors import ConfigError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "eventing" / "dead-letters" / "src"))
from glowplug_dead_letters.letter import Letter  # noqa: E402
from glowplug_dead_letters.settings import parse  # noqa: E402
from glowplug_dead_letters.shelf import Shelf  # noqa: E402

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedProcess]:
    folder = tmp_path_factory.mktemp("letters")
    process = HostedProcess(folder / "log", "dead-letters", f"--folder={folder}", "--max_event_mib=1")
    yield process
    process.stop()


def post(url: str, id: str, type: str = "t", data: bytes = b'{"a": 1.10}', **more: str) -> httpx.Response:
    """An event in the binary form."""
    attributes = {"specversion": "1.0", "id": id, "source": "/tests", "type": type, **more}
    return httpx.post(
        url, content=data, headers={f"ce-{key}": value for key, value in attributes.items()} | JSON
    )


def listed(url: str, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{url}/{query}").json()["letters"]
    return found


def letter(number: int, size: int = 100) -> Letter:
    return Letter("t", "/tests", str(number), "", "", "", b"x" * size)


def test_keeps_the_event_and_why_nobody_took_it(sink: HostedProcess) -> None:
    why = base64.b64encode(b"no such model").decode()
    answer = post(
        sink.url, "why", "why", knativeerrordest="http://a/", knativeerrorcode="404", knativeerrordata=why
    )
    assert (answer.status_code, answer.content) == (202, b"")
    (found,) = listed(sink.url, "?type=why")
    assert (found["destination"], found["code"], found["answer"]) == ("http://a/", "404", "no such model")
    whole = httpx.get(f"{sink.url}/letters/{found['number']}")
    assert whole.headers["content-type"].startswith("application/cloudevents+json")
    # As it came, not as Python's floats would write it.
    assert b'"data":{"a": 1.10}' in whole.content


def test_a_letter_can_be_sent_again_as_it_is_shown(sink: HostedProcess) -> None:
    post(sink.url, "again", "again")
    (found,) = listed(sink.url, "?type=again")
    shown = httpx.get(f"{sink.url}/letters/{found['number']}")
    sent = httpx.post(
        sink.url, content=shown.content, headers={"content-type": shown.headers["content-type"]}
    )
    assert sent.status_code == 202
    (found,) = listed(sink.url, "?type=again")
    assert found["times"] == 2


def test_takes_a_batch(sink: HostedProcess) -> None:
    batch = [{"specversion": "1.0", "id": str(n), "source": "/b", "type": "batch"} for n in range(3)]
    answer = httpx.post(sink.url, json=batch, headers={"content-type": "application/cloudevents-batch+json"})
    assert answer.status_code == 202
    assert [each["id"] for each in listed(sink.url, "?type=batch")] == ["2", "1", "0"]
    numbers = [each["number"] for each in listed(sink.url, "?type=batch&limit=2")]
    assert [each["id"] for each in listed(sink.url, f"?type=batch&before={numbers[-1]}")] == ["0"]


@pytest.mark.parametrize(
    ("status", "said", "request_"),
    [
        (400, "specversion is missing", {"method": "POST", "url": "/", "content": b"{}"}),
        (400, "limit=x, expected", {"method": "GET", "url": "/?limit=x"}),
        (404, "is not here, expected", {"method": "GET", "url": "/letters/x"}),
        (404, "there is no letter 999999", {"method": "GET", "url": "/letters/999999"}),
        (405, "expected POST /", {"method": "DELETE", "url": "/"}),
        (413, "larger than", {"method": "POST", "url": "/", "content": b"x" * (2**20 + 1)}),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_says_what_is_wrong(sink: HostedProcess, status: int, said: str, request_: dict[str, Any]) -> None:
    url = sink.url + request_.pop("url")
    answer = httpx.request(url=url, **request_)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_counts_by_type_but_not_without_bounds(sink: HostedProcess) -> None:
    with httpx.Client() as client:
        for number in range(120):
            headers = {
                "ce-specversion": "1.0",
                "ce-id": "1",
                "ce-source": "/many",
                "ce-type": f"many{number}",
            }
            assert client.post(sink.url, headers=headers).status_code == 202
        page = client.get(f"{sink.url}/metrics").text
    assert 'glowplug_dead_letters_total{type="other"}' in page
    assert page.count("glowplug_dead_letters_total{") <= 101


def test_what_was_accepted_survives_a_kill(tmp_path: Path) -> None:
    process = HostedProcess(tmp_path / "log", "dead-letters", f"--folder={tmp_path}")
    ids = [str(number) for number in range(20)]
    assert all(post(process.url, id).status_code == 202 for id in ids)
    process.kill()
    process = HostedProcess(tmp_path / "log", "dead-letters", f"--folder={tmp_path}")
    assert sorted(int(each["id"]) for each in listed(process.url)) == list(range(20))
    assert "glowplug_dead_letters_kept 20" in httpx.get(f"{process.url}/metrics").text
    process.stop()


def test_the_oldest_make_room(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, max_letters=3, max_bytes=1000)
    assert shelf.keep([letter(n) for n in range(5)], 0.0) == 2
    assert [each.id for each in shelf.newest(10)] == ["4", "3", "2"]
    # By bytes, too.
    assert shelf.keep([letter(9, 850)], 1.0) == 2
    assert ([each.id for each in shelf.newest(10)], shelf.bytes) == (["9", "4"], 950)
    shelf.close()
    again = Shelf(tmp_path, max_letters=3, max_bytes=1000)
    assert (again.count, again.bytes) == (2, 950)
    again.close()


def test_settings_are_checked(tmp_path: Path) -> None:
    assert parse([], {"DEAD_LETTERS_DIR": "/a", "PORT": "9"}).folder == Path("/a")
    with pytest.raises(ConfigError, match="max_letters=0, must be 1 or more"):
        parse(["--max_letters=0"], {})
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot hold the letters"):
        Shelf(tmp_path / "file", 1, 1)
