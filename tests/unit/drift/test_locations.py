"""Where a profile may be, and what is said where there is none."""

from __future__ import annotations

import functools
import http.server
import threading

import pytest
from unit.drift.streams import profile

from glowplug.drift.locations import read_profile
from glowplug.drift.profile import PROFILE_FILE
from glowplug.errors import FeatureError, StorageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("claims") / "models" / "a model"
    found.mkdir(parents=True)
    (found / PROFILE_FILE).write_bytes(profile(500).to_json())
    (found / "other.json").write_bytes(b"{}")
    return found


def test_a_folder_and_a_file_by_path_and_by_uri(folder) -> None:
    digest = profile(500).digest
    for location in (
        str(folder), f"{folder}/", str(folder / PROFILE_FILE), folder.as_uri(),
        f"{folder.as_uri()}/{PROFILE_FILE}",
    ):  # fmt: skip
        assert read_profile(location).digest == digest
    volumes = folder.parents[1]
    assert read_profile("pvc://models/a model", volumes).digest == digest


def test_by_http(folder) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert read_profile(url).digest == profile(500).digest
        with pytest.raises(StorageError, match="404"):
            read_profile(f"{url}/nowhere")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("location", ["/nowhere", "file:///nowhere", "pvc://models/x", "pvc://../x"])
def test_where_there_is_none_the_place_is_named(location, tmp_path) -> None:
    with pytest.raises(StorageError) as caught:
        read_profile(location, tmp_path)
    assert location.rpartition("/")[2] in caught.value.message
    assert caught.value.hint


def test_a_claim_needs_a_place_and_stays_in_it(folder) -> None:
    for location, volumes in (("pvc://models/x", None), ("pvc://models/../../etc", folder)):
        with pytest.raises(StorageError, match="not said where"):
            read_profile(location, volumes)


def test_what_is_no_profile(folder) -> None:
    with pytest.raises(FeatureError, match="version"):
        read_profile(str(folder / "other.json"))
