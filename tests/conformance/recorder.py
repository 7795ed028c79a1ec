"""The recorder of the cases: a Knative Service that keeps events and files, asks what only a cluster's pods reach."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from conformance.controller import program
from conformance.target import AUTOSCALING, Object, Target

PROGRAM = pathlib.Path(__file__).parent / "pods" / "recorder.py"


@dataclass(frozen=True)
class Answer:
    """What somebody answered; 0 is nobody, and the body then says why."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Recorder:
    """A pod that is always there, and only one: events are kept in its memory."""

    target: Target
    name: str

    @property
    def ref(self) -> Object:
        return {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": self.name}}

    @property
    def url(self) -> str:
        """What the cluster's own know it by."""
        return str(self.target.get("ksvc", self.name)["status"]["address"]["url"])

    def events(self, type: str = "") -> list[Object]:
        """Those of a CloudEvents type; all of them where none is given."""
        listed: list[Object] = self._control("GET", "events")
        return [each for each in listed if not type or each["headers"].get("ce-type") == type]

    def answer(self, path: str, *answers: Object) -> None:
        """How the next events that come to a path are answered: status, headers, body."""
        self._control("PUT", "answers", {path: list(answers)})

    def ask(self, method: str, url: str, headers: dict[str, str] | None = None, body: str = "") -> Answer:
        """What `url` answers to the recorder's pod."""
        told = {"method": method, "url": url, "headers": headers or {}}
        return Answer(**self._control("POST", "ask", {**told, "body": body} if body else told))

    def send(self, url: str, type: str, id: str, data: Any = None, **extensions: str) -> Answer:
        """A CloudEvent in binary mode."""
        attributes = {"specversion": "1.0", "type": type, "source": "/conformance", "id": id, **extensions}
        headers = {f"ce-{name}": value for name, value in attributes.items()}
        return self.ask("POST", url, {**headers, "content-type": "application/json"}, json.dumps(data))

    def keep(self, name: str, content: bytes) -> str:
        """A file; the URL that the cluster's own get it by."""
        self._control("PUT", f"files/{name}", content=content)
        return f"{self.url.rstrip('/')}/-/files/{name}"

    def _control(self, method: str, path: str, value: Any = None, content: bytes | None = None) -> Any:
        parts = urlsplit(str(self.target.get("ksvc", self.name)["status"]["url"]).rstrip("/"))
        base = f"{parts.scheme}://{parts.netloc}" if self.target.gateway is None else self.target.gateway
        answer = self.target.http.request(
            method,
            f"{base}{parts.path}/-/{path}",
            headers={"Host": parts.netloc},
            **({"json": value} if content is None else {"content": content}),
        )
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        return answer.json()


@contextmanager
def recorder(target: Target, name: str) -> Iterator[Recorder]:
    """Ready when the block begins, gone after it."""
    container = {**program(target, PROGRAM), "name": "user-container"}
    always = {f"{AUTOSCALING}/min-scale": "1", f"{AUTOSCALING}/max-scale": "1"}
    target.apply(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"template": {"metadata": {"annotations": always}, "spec": {"containers": [container]}}},
        }
    )
    try:
        target.wait(f"ksvc/{name}")
        yield Recorder(target, name)
    finally:
        target.kubectl("delete", "ksvc", name, "--ignore-not-found")
