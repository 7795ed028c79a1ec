"""One file of a git repository changed by a commit on a branch: fetched, committed, pushed if nobody pushed before.

By dulwich and not by the git program: images of pipelines need no git then; nothing is checked out, so that a
repository's hooks, filters and links never run or lead anywhere; the token is in no argument list, file or URL; and
a push can insist on the very commit that was looked at, without a force that a `git push` would need for it.
"""

from __future__ import annotations

import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import DeployError, EditedMeanwhile, Unambiguous
from .settings import TOKEN, GitSettings

Edit = Callable[[str], str]
_TRIES = 2  # what is told to have been overtaken is tried once more, on what is there then


@dataclass(frozen=True)
class Committed:
    """`commit` is what the branch is at; `is_new` False where what was to be written was there."""

    branch: str
    commit: str
    is_new: bool


class Overtaken(Exception):
    """Somebody pushed in between."""


def commit_file(settings: GitSettings, token: str, branch: str, edit: Edit, message: str) -> Committed:
    """The file at `settings.path` edited on `branch`, which grows out of the base where it is not there yet.

    `edit` makes new text of the text that is there. Raises DeployError, EditedMeanwhile, and what `edit` raises.
    Blocks; each request of it for `settings.timeout_s` at most over HTTP.
    """
    for _ in range(_TRIES):
        try:
            with _explained(settings, token):
                return _commit(settings, token, branch, edit, message)
        except Overtaken:
            continue
    raise EditedMeanwhile(
        f"{settings.repository}: somebody pushed to {branch} each of {_TRIES} times in between",
        hint="the version is registered; the next attempt of the run commits it",
    )


def _commit(settings: GitSettings, token: str, branch: str, edit: Edit, message: str) -> Committed:
    from dulwich.repo import Repo

    client, path = _client(settings, token)
    with tempfile.TemporaryDirectory(prefix="glowplug-git-") as folder, Repo.init_bare(folder) as repo:
        refs = _fetch(client, path, repo, settings, branch)
        base, head = refs.get(_ref(settings.base)), refs.get(_ref(branch))
        if base is None:
            raise DeployError(
                f"{settings.repository} has no branch {settings.base}", hint="set deploying.git.base"
            )
        text = _text(repo, head or base, settings)
        edited = edit(text)
        if edited == text:
            return Committed(branch if head else settings.base, (head or base).decode(), is_new=False)
        objects = _objects(repo, head or base, settings, edited.encode(), message)
        _push(client, path, _ref(branch), head, objects, settings)
        return Committed(branch, objects[-1].id.decode(), is_new=True)


def _client(settings: GitSettings, token: str) -> tuple[Any, str]:
    from dulwich.client import HttpGitClient, get_transport_and_path

    parts = urlsplit(settings.repository)
    if parts.scheme not in ("http", "https"):
        found: tuple[Any, str] = get_transport_and_path(settings.repository)
        return found
    client = HttpGitClient(
        f"{parts.scheme}://{parts.netloc}",
        username=settings.username if token else None,
        password=token or None,
        timeout=settings.timeout_s,
    )
    return client, parts.path


def _fetch(client: Any, path: str, repo: Any, settings: GitSettings, branch: str) -> dict[bytes, bytes]:
    asked = {_ref(settings.base), _ref(branch)}

    def wants(refs: dict[bytes, bytes], depth: int | None = None) -> list[bytes]:
        return [value for name, value in refs.items() if name in asked]

    # Of a remote repository the newest commits only: its history may be long, and is not needed.
    is_remote = "://" in settings.repository and not settings.repository.startswith("file:")
    result = client.fetch(path, repo, determine_wants=wants, depth=1 if is_remote else None)
    return {name: value for name, value in result.refs.items() if value is not None}


def _ref(branch: str) -> bytes:
    return b"refs/heads/" + branch.encode()


def _entries(settings: GitSettings) -> list[bytes]:
    return settings.path.encode().split(b"/")


def _text(repo: Any, commit: bytes, settings: GitSettings) -> str:
    from dulwich.object_store import tree_lookup_path

    where = f"{settings.repository} {settings.path} at {commit.decode()[:12]}"
    try:
        mode, found = tree_lookup_path(repo.__getitem__, repo[commit].tree, settings.path.encode())
    except Exception as error:  # KeyError, NotTreeError, SubmoduleEncountered: dulwich has no common class
        raise DeployError(f"{where} is not there", hint="set deploying.git.path") from error
    if not stat.S_ISREG(mode):
        raise Unambiguous(f"{where} is no file but of mode {mode:o}", hint="name the file itself, not a link")
    try:
        return str(repo[found].data.decode())
    except UnicodeDecodeError as error:
        raise Unambiguous(f"{where} is no text in UTF-8: {error}") from error


def _objects(repo: Any, parent: Any, settings: GitSettings, content: bytes, message: str) -> list[Any]:
    """What is new: the file, the folders down to it, and the commit, which comes last."""
    from dulwich.objects import Blob, Commit

    trees, names = [repo[repo[parent].tree]], _entries(settings)
    for name in names[:-1]:
        trees.append(repo[trees[-1][name][1]])
    made: list[Any] = [Blob.from_string(content)]
    for tree, name in zip(reversed(trees), reversed(names), strict=True):
        changed = tree.copy()
        changed[name] = (tree[name][0], made[-1].id)
        made.append(changed)
    commit = Commit()
    commit.tree, commit.parents = made[-1].id, [parent]
    commit.author = commit.committer = settings.author.encode()
    commit.author_time = commit.commit_time = int(time.time())
    commit.author_timezone = commit.commit_timezone = 0
    commit.encoding, commit.message = b"UTF-8", message.strip().encode() + b"\n"
    return [*made, commit]


def _push(
    client: Any, path: str, ref: bytes, expected: bytes | None, objects: list[Any], settings: GitSettings
) -> None:
    from dulwich.pack import pack_objects_to_data

    def update(refs: dict[bytes, bytes]) -> dict[bytes, bytes]:
        if refs.get(ref) != expected:
            raise Overtaken
        return {ref: objects[-1].id}

    def pack(have: Any, want: Any, **_: Any) -> Any:
        return pack_objects_to_data([(each, None) for each in objects])

    result = client.send_pack(path, update, pack)
    trouble = (result.ref_status or {}).get(ref)
    if not trouble:
        return
    trouble = trouble.decode() if isinstance(trouble, bytes) else str(trouble)
    if any(
        sign in trouble for sign in ("unable to set", "fetch first", "non-fast", "failed to update", "lock")
    ):
        raise Overtaken
    raise DeployError(
        f"{settings.repository} refuses the push to {ref.decode()}: {trouble}",
        hint="a protected branch takes pull requests only: set deploying.git.branch and deploying.pullRequest",
    )


@contextmanager
def _explained(settings: GitSettings, token: str) -> Iterator[None]:
    """What git and HTTP raise, as a DeployError that names the repository and never the token."""
    from dulwich.client import HTTPUnauthorized
    from dulwich.errors import GitProtocolError, NotGitRepository, SendPackError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except HTTPUnauthorized as error:
        what = "refuses the token" if token else "wants a token"
        raise DeployError(
            f"{settings.repository} {what}", hint=f"{TOKEN} in the environment, from a Secret in a cluster"
        ) from error
    except (GitProtocolError, NotGitRepository, SendPackError, HTTPError, OSError) as error:
        told = str(error) or type(error).__name__
        if token:
            told = told.replace(token, "…")
        raise DeployError(f"{settings.repository} cannot be reached: {told}") from None
