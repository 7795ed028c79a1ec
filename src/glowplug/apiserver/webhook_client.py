"""Calls a webhook over HTTPS: one POST within its time, and an answer of bounded size, or CallFailed that says why.

Each call is a connection of its own. Writes that a webhook sees are few, and a kept connection would have to be
told from one that the webhook closed when it was restarted, which is when most calls come.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Protocol

import anyio

from glowplug.apiserver.webhook_configurations import Hook

_MAX_ANSWER_BYTES = 16 * 2**20
_SHOWN = 200


class CallFailed(Exception):
    """No answer that can be read: the webhook's failurePolicy says what that means."""


class Post(Protocol):
    """Sends a review and returns the answer's body. Raises CallFailed."""

    async def __call__(self, hook: Hook, body: bytes) -> bytes: ...


async def post(hook: Hook, body: bytes) -> bytes:
    """See `Post`."""
    # Half of a machine's start for what most machines never need.
    import httpx2

    where = f'failed to call webhook: Post "{hook.url}?timeout={hook.timeout_s}s"'
    try:
        context = _context(hook.ca)
        with anyio.fail_after(hook.timeout_s):
            # As in Kubernetes: no proxy of the environment for what listens here, and no redirects.
            async with (
                httpx2.AsyncClient(verify=context, trust_env=False, timeout=None) as client,
                client.stream(
                    "POST",
                    hook.url,
                    params={"timeout": f"{hook.timeout_s}s"},
                    content=body,
                    headers={"content-type": "application/json", "accept": "application/json"},
                ) as response,
            ):
                answer = await _read(response.aiter_bytes())
                if response.is_success:
                    return answer
    except TimeoutError as error:
        raise CallFailed(f"{where}: context deadline exceeded: no answer in {hook.timeout_s} s") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise CallFailed(f"{where}: {error or type(error).__name__}") from error
    text = answer[:_SHOWN].decode("utf-8", "replace").strip()
    raise CallFailed(f"{where}: the webhook answered {response.status_code} {text}".strip())


class _Chunks(Protocol):
    def __aiter__(self) -> _Chunks: ...

    async def __anext__(self) -> bytes: ...


async def _read(chunks: _Chunks) -> bytes:
    answer = bytearray()
    async for chunk in chunks:
        answer += chunk
        if len(answer) > _MAX_ANSWER_BYTES:
            raise ValueError(f"the answer is longer than {_MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


@lru_cache(maxsize=32)
def _context(ca: bytes) -> ssl.SSLContext:
    """Trusts the bundle alone, or with none the system. Raises ValueError for a bundle that is none."""
    try:
        context = ssl.create_default_context(cadata=ca.decode("ascii") if ca.strip() else None)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ValueError(f"unable to load root certificates from caBundle: {error}") from error
    # As Go does: whatever is in the bundle is a root, also a server's own certificate that signed itself, and
    # certificates need not follow every letter of RFC 5280 (Python 3.13 asks for that).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
