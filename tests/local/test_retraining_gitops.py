"""A version deployed through a git repository: real repositories, by path and by HTTP, and a forge that checks."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pathlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from glowplug.registry.models import ModelVersion
from glowplug_pipelines.deploying.deploying import deploy
from glowplug_pipelines.deploying.deployment import Awaits, Deployed, Deployment
from glowplug_pipelines.deploying.errors import DeployError, EditedMeanwhile, Unambiguous
from glowplug_pipelines.deploying.forge import GitHub
from glowplug_pipelines.deploying.repository import commit_file
from glowplug_pipelines.deploying.settings import DeploySettings, GitSettings, PullRequestSettings

TOKEN = "a-token-nobody-may-see"
CARD = "# Model card\n\nThe challenger's error is 4 % lower: ünïcode as well.\n"
OLD, NEW = "s3://models/1", "s3://models/2"
MANIFEST = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: flights
spec:
  predictor:
    model:
      modelFormat: {name: xgboost}
      storageUri: s3://models/1  # moved by retraining
"""


class Repository:
    """A bare repository with one manifest on `main`, and somebody's clone of it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.bare, self.clone = folder / "served" / "manifests.git", folder / "clone"
        self.bare.parent.mkdir(parents=True)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare), at=folder)
        self.git("clone", "--quiet", str(self.bare), str(self.clone), at=folder)
        self.git("checkout", "--quiet", "-b", "main")
        self.git("config", "user.name", "Ada")
        self.git("config", "user.email", "ada@example.com")
        self.push("flights/isvc.yaml", MANIFEST)
        self.push("README.md", "manifests\n")

    def git(self, *arguments: str, at: pathlib.Path | None = None) -> str:
        ran = subprocess.run(
            ["git", *arguments],
            cwd=at or self.clone,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ran.returncode == 0, f"git {arguments}: {ran.stderr}"
        return ran.stdout

    def push(self, path: str, text: str) -> None:
        """What somebody else does."""
        self.git("fetch", "--quiet", "origin")
        if self.git("branch", "--remotes").strip():
            self.git("reset", "--quiet", "--hard", "origin/main")
        file = self.clone / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.git("add", path)
        self.git("commit", "--quiet", "--message", f"Change {path}")
        self.git("push", "--quiet", "origin", "HEAD:main")

    def shown(self, what: str) -> str:
        return self.git("show", what, at=self.bare)

    def count(self, branch: str) -> int:
        return int(self.git("rev-list", "--count", branch, at=self.bare))


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> Repository:
    return Repository(tmp_path)


def settings(repository: str, branch: str = "glowplug/{model}-{version}", **more: Any) -> DeploySettings:
    git = GitSettings(repository, "flights/isvc.yaml", branch=branch, timeout_s=20)
    return DeploySettings("gitops", "flights", git=git, **more)


def a_deployment(tmp_path: pathlib.Path, previous: str | None = OLD, uri: str = NEW) -> Deployment:
    card = tmp_path / "card.md"
    card.write_text(CARD, encoding="utf-8")
    return Deployment("flights-run-1", ModelVersion("flights", "2", uri, "m", {}), card, previous)


def deployed(asked: DeploySettings, deployment: Deployment, token: str = "") -> Deployed:
    async def run() -> Deployed:
        api: Any = None  # GitOps asks no Kubernetes API
        if asked.pull_request is None:
            return await deploy(asked, deployment, api, token)
        async with GitHub(asked.pull_request, token) as forge:
            return await deploy(asked, deployment, api, token, forge)

    return asyncio.run(run())


def test_a_commit_changes_one_line_and_has_the_card_as_its_text(
    repository: Repository, tmp_path: pathlib.Path
) -> None:
    asked, deployment = settings(str(repository.bare)), a_deployment(tmp_path)
    first = deployed(asked, deployment)
    assert first.is_new and first.awaits is Awaits.MERGE
    branch = "glowplug/flights-2"
    assert (
        repository.git("diff", "--numstat", "main", branch, at=repository.bare) == "1\t1\tflights/isvc.yaml\n"
    )
    assert f"storageUri: {NEW}  # moved by retraining" in repository.shown(f"{branch}:flights/isvc.yaml")
    text = repository.git("log", "-1", "--format=%B", branch, at=repository.bare)
    assert text.startswith("Serve flights version 2\n\n# Model card")
    assert "ünïcode" in text and text.rstrip().endswith("Run: flights-run-1")
    assert repository.git("log", "-1", "--format=%an <%ae>", branch, at=repository.bare).strip() == (
        "glowplug <glowplug@localhost>"
    )
    repository.git("fsck", "--strict", at=repository.bare)
    again = deployed(asked, deployment)
    assert not again.is_new and repository.count(branch) == repository.count("main") + 1


def test_without_a_branch_of_its_own_it_goes_onto_the_base(
    repository: Repository, tmp_path: pathlib.Path
) -> None:
    before = repository.count("main")
    assert deployed(settings(str(repository.bare), branch=""), a_deployment(tmp_path)).is_new
    assert NEW in repository.shown("main:flights/isvc.yaml") and repository.count("main") == before + 1


def test_a_push_in_between_is_met_by_one_more_try(repository: Repository) -> None:
    git, times = GitSettings(str(repository.bare), "flights/isvc.yaml"), []

    def edit(text: str) -> str:
        times.append(text)
        if len(times) == 1:
            repository.push("README.md", "somebody was faster\n")
        return text.replace(OLD, NEW)

    assert commit_file(git, "", "main", edit, "Serve it").is_new
    assert len(times) == 2
    assert NEW in repository.shown("main:flights/isvc.yaml")
    assert repository.shown("main:README.md") == "somebody was faster\n", "nothing of theirs is lost"


def test_somebody_who_always_pushes_first_is_told_of(repository: Repository) -> None:
    git, times = GitSettings(str(repository.bare), "flights/isvc.yaml"), []

    def edit(text: str) -> str:
        times.append(text)
        repository.push("README.md", f"push {len(times)}\n")
        return text.replace(OLD, NEW)

    with pytest.raises(EditedMeanwhile, match="somebody pushed to main each of 2 times"):
        commit_file(git, "", "main", edit, "Serve it")
    assert OLD in repository.shown("main:flights/isvc.yaml")


def test_an_edit_of_the_same_line_is_a_conflict(repository: Repository, tmp_path: pathlib.Path) -> None:
    repository.push("flights/isvc.yaml", MANIFEST.replace(OLD, "s3://models/by-hand"))
    with pytest.raises(EditedMeanwhile, match="is s3://models/by-hand, expected s3://models/1"):
        deployed(settings(str(repository.bare)), a_deployment(tmp_path))
    assert "glowplug" not in repository.git("branch", at=repository.bare)


def test_what_is_not_there_or_no_manifest_is_told(repository: Repository, tmp_path: pathlib.Path) -> None:
    deployment = a_deployment(tmp_path)
    cases: list[tuple[GitSettings, type[Exception], str]] = [
        (GitSettings(str(tmp_path / "nowhere"), "a.yaml"), DeployError, "cannot be reached"),
        (GitSettings(str(repository.bare), "a/b.yaml"), DeployError, "a/b.yaml at .* is not there"),
        (GitSettings(str(repository.bare), "flights"), Unambiguous, "is no file but of mode"),
        (GitSettings(str(repository.bare), "README.md"), Unambiguous, "has no place for"),
        (GitSettings(str(repository.bare), "a.yaml", base="trunk"), DeployError, "has no branch trunk"),
    ]
    for git, kind, said in cases:
        with pytest.raises(kind, match=said):
            deployed(DeploySettings("gitops", "flights", git=git), deployment)


class Forge:
    """Git over HTTP, by git's own program, and GitHub's REST, on one port; both want the token."""

    def __init__(self, root: pathlib.Path) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.pulls: list[dict[str, Any]] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        forge = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self._body())

            def _body(self) -> bytes:
                if self.headers.get("transfer-encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("content-length") or 0))
                found = b""
                while size := int(self.rfile.readline(), 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return found

            def _answer(self, body: bytes) -> None:
                if self.path.startswith("/repos/"):
                    status, answer = forge.rest(self.command, self.path, dict(self.headers), body)
                    self._send(status, {"content-type": "application/json"}, json.dumps(answer).encode())
                else:
                    self._send(*forge.git(root, self.command, self.path, self.headers, body))

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, name="forge"
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def git(
        self, root: pathlib.Path, method: str, path: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        expected = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        if headers.get("authorization") != f"Basic {expected}":
            return 401, {"www-authenticate": 'Basic realm="git"'}, b""
        parts = urlsplit(path)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "somebody",
            "REQUEST_METHOD": method,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "CONTENT_TYPE": headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "GIT_PROTOCOL": headers.get("git-protocol", ""),
        }
        ran = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, timeout=30, check=True
        )
        head, _, content = ran.stdout.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return int(lines.pop("Status", "200").split()[0]), lines, content

    def rest(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        found = {name.lower(): value for name, value in headers.items()}
        if found.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}
        assert found["accept"] == "application/vnd.github+json" and found["x-github-api-version"]
        parts = urlsplit(path)
        asked = json.loads(body) if body else parse_qs(parts.query)
        self.requests.append((method, parts.path, asked))
        if self.refusal is not None and method == "POST":
            return self.refusal
        if parts.path == "/repos/acme/manifests/pulls" and method == "GET":
            return 200, [pull for pull in self.pulls if asked["head"] == [f"acme:{pull['branch']}"]]
        if parts.path == "/repos/acme/manifests/pulls":
            number = len(self.pulls) + 1
            url = f"{self.url}/acme/manifests/pull/{number}"
            pull = {"number": number, "html_url": url, "state": "open", "branch": asked["head"]}
            self.pulls.append(pull)
            return 201, pull
        if parts.path.startswith("/repos/acme/manifests/issues/"):
            return 200, []
        return 404, {"message": "Not Found"}


@pytest.fixture
def forge(repository: Repository) -> Iterator[Forge]:
    repository.git("config", "http.receivepack", "true", at=repository.bare)
    found = Forge(repository.bare.parent)
    yield found
    found.close()


def with_forge(forge: Forge) -> DeploySettings:
    asked = PullRequestSettings("acme/manifests", api=forge.url, labels=("retraining",))
    return settings(f"{forge.url}/manifests.git", pull_request=asked)


def test_a_pull_request_is_opened_once_with_the_card(
    repository: Repository, forge: Forge, tmp_path: pathlib.Path
) -> None:
    asked, deployment = with_forge(forge), a_deployment(tmp_path)
    first = deployed(asked, deployment, TOKEN)
    assert first.is_new and first.url == f"{forge.url}/acme/manifests/pull/1"
    assert NEW in repository.shown("glowplug/flights-2:flights/isvc.yaml")
    ((_, _, opened),) = [each for each in forge.requests if each[0] == "POST" and each[1].endswith("/pulls")]
    assert (opened["head"], opened["base"]) == ("glowplug/flights-2", "main")
    assert opened["title"] == "Serve flights version 2" and CARD.strip() in opened["body"]
    assert ("POST", "/repos/acme/manifests/issues/1/labels", {"labels": ["retraining"]}) in forge.requests
    again = deployed(asked, deployment, TOKEN)
    assert not again.is_new and again.url == first.url and len(forge.pulls) == 1
    repository.git("fsck", "--strict", at=repository.bare)


def test_a_request_that_somebody_closed_is_not_opened_again(forge: Forge, tmp_path: pathlib.Path) -> None:
    asked, deployment = with_forge(forge), a_deployment(tmp_path)
    deployed(asked, deployment, TOKEN)
    forge.pulls[0]["state"] = "closed"
    with pytest.raises(DeployError, match="was closed: somebody does not want flights version 2"):
        deployed(asked, deployment, TOKEN)
    forge.pulls[0]["merged_at"] = "2026-01-01T00:00:00Z"
    assert deployed(asked, deployment, TOKEN).url
    assert len(forge.pulls) == 1


def test_a_push_in_between_over_http_is_met_by_one_more_try(repository: Repository, forge: Forge) -> None:
    git, times = GitSettings(f"{forge.url}/manifests.git", "flights/isvc.yaml"), []

    def edit(text: str) -> str:
        times.append(text)
        if len(times) == 1:
            repository.push("README.md", "somebody was faster\n")
        return text.replace(OLD, NEW)

    assert commit_file(git, TOKEN, "main", edit, "Serve it").is_new
    assert len(times) == 2 and repository.shown("main:README.md") == "somebody was faster\n"


@pytest.mark.parametrize(
    "break_it, said",
    [
        (lambda forge: setattr(forge, "refusal", (422, {"message": "Validation Failed", "errors": [
            {"message": "No commits between main and glowplug/flights-2"}]})), "422 Validation Failed: No commits"),
        (lambda forge: setattr(forge, "refusal", (403, {"message": "Resource not accessible"})), "403 Resource"),
    ],
)  # fmt: skip
def test_what_the_forge_refuses_is_told(
    forge: Forge, tmp_path: pathlib.Path, break_it: Callable[[Forge], None], said: str
) -> None:
    break_it(forge)
    with pytest.raises(DeployError) as caught:
        deployed(with_forge(forge), a_deployment(tmp_path), TOKEN)
    assert said in caught.value.message


def test_the_token_is_in_no_error_and_no_log(
    repository: Repository, forge: Forge, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    wrong = "another-token-nobody-may-see"
    errors: list[BaseException] = []
    for token in (wrong, ""):
        with pytest.raises(DeployError, match="refuses the token" if token else "wants a token") as caught:
            deployed(with_forge(forge), a_deployment(tmp_path), token)
        errors.append(caught.value)
    branch = settings(str(repository.bare), pull_request=with_forge(forge).pull_request)
    with pytest.raises(DeployError, match="401 Bad credentials") as caught:
        deployed(branch, a_deployment(tmp_path), wrong)
    errors.append(caught.value)
    deployed(with_forge(forge), a_deployment(tmp_path), TOKEN)
    shown = [repr(error) + str(error.__cause__) + getattr(error, "hint", "") for error in errors]
    encoded = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    for secret in (wrong, TOKEN, encoded):
        assert all(secret not in text for text in [*shown, caplog.text])
