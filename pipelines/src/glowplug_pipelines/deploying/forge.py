"""Where pull requests are opened: a small interface, and GitHub's REST behind it.

Asked for twice, a request is the same: one that is there for the branch is taken, open or merged. The token is sent
in the Authorization header and stands in no message.
Source: https://docs.github.com/en/rest/pulls/pulls
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import httpx2

from .errors import DeployError
from .settings import TOKEN, PullRequestSettings

_VERSION = "2022-11-28"
_MAX_BODY = 65_536  # characters that GitHub takes
_CUT = "\n\n… (the whole card is beside the model)"


@dataclass(frozen=True)
class PullRequest:
    """`state` is open, closed or merged."""

    number: int
    url: str
    state: str


class Forge(Protocol):
    """What takes pull requests."""

    async def pull_request(self, branch: str, base: str, title: str, text: str) -> PullRequest:
        """The one for `branch`, opened if there is none. Raises DeployError."""
        ...


class GitHub:
    """GitHub, or a GitHub Enterprise Server, by REST."""

    def __init__(self, settings: PullRequestSettings, token: str) -> None:
        self._settings = settings
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": _VERSION}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # No redirects: one to another host would take the token along.
        self._http = httpx2.AsyncClient(
            base_url=f"{settings.api}/repos/{settings.repository}",
            headers={**headers, "User-Agent": "glowplug"},
            timeout=settings.timeout_s,
            follow_redirects=False,
        )
        self._has_token = bool(token)

    async def __aenter__(self) -> GitHub:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def pull_request(self, branch: str, base: str, title: str, text: str) -> PullRequest:
        """See `Forge`."""
        found = await self._existing(branch, base)
        if found is None:
            body = text if len(text) <= _MAX_BODY else text[: _MAX_BODY - len(_CUT)] + _CUT
            asked = {"title": title, "head": branch, "base": base, "body": body}
            found = _pull_request(await self._send("POST", "/pulls", json=asked))
        if self._settings.labels and found.state == "open":
            # Setting them again changes nothing.
            labels = {"labels": list(self._settings.labels)}
            await self._send("POST", f"/issues/{found.number}/labels", json=labels)
        return found

    async def _existing(self, branch: str, base: str) -> PullRequest | None:
        owner = self._settings.repository.partition("/")[0]
        asked = {"head": f"{owner}:{branch}", "base": base, "state": "all"}
        found = await self._send("GET", "/pulls", params=asked)
        requests = [_pull_request(each) for each in found]
        return next((each for each in requests if each.state != "closed"), requests[0] if requests else None)

    async def _send(self, method: str, path: str, **arguments: Any) -> Any:
        where = f"{method} {self._settings.api}/repos/{self._settings.repository}{path}"
        try:
            response = await self._http.request(method, path, **arguments)
        except httpx2.HTTPError as error:
            raise DeployError(f"{where}: {error or type(error).__name__}") from error
        if response.status_code < 300:
            try:
                return response.json()
            except ValueError as error:
                raise DeployError(f"{where}: the answer is no JSON") from error
        raise DeployError(
            f"{where}: {response.status_code} {_message(response)}", hint=self._hint(response.status_code)
        )

    def _hint(self, status: int) -> str:
        if status in (401, 403, 404):
            found = "it may write pull requests and contents" if self._has_token else "it is not set"
            return f"{TOKEN}: see whether {found}" if self._has_token else f"{TOKEN} is not set"
        return ""


def _pull_request(found: Any) -> PullRequest:
    try:
        state = "merged" if found.get("merged_at") else str(found["state"])
        return PullRequest(int(found["number"]), str(found["html_url"]), state)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DeployError(f"the forge's answer is no pull request: {error}") from error


def _message(response: httpx2.Response) -> str:
    try:
        found = response.json()
        parts = [str(found["message"])]
        parts += [
            str(each.get("message") or each.get("code") or "")
            for each in found.get("errors", ())
            if isinstance(each, dict)
        ]
        return ": ".join(part for part in parts if part)[:500]
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.text.strip()[:200]
