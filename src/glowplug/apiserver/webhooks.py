"""Admission webhooks: which of the configured ones a client's write goes through, and their calls in order.

Mutating webhooks are called one after the other by the names of their configurations, each seeing what those before
it changed; the validating ones then all at once. Only what comes in as a request is reviewed: this machine's own
controllers write to the store directly, as if they were part of the API server. In Kubernetes their writes would be
reviewed too, but what users and operators act on (InferenceServices above all) is written by clients only.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

import anyio

from glowplug.apiserver.codec import Object, encode
from glowplug.apiserver.objects import Objects
from glowplug.apiserver.paging import Page
from glowplug.apiserver.patch import json_patch
from glowplug.apiserver.selectors import EVERYTHING
from glowplug.apiserver.webhook_client import CallFailed, Post, post
from glowplug.apiserver.webhook_configurations import Hook, hooks_of
from glowplug.apiserver.webhook_matching import Attributes, is_ruled, is_selected
from glowplug.apiserver.webhook_review import Denied, Verdict, WebhookError, review, verdict
from glowplug.errors import ApiError
from glowplug.spec.kinds import (
    MUTATING_WEBHOOK_CONFIGURATION,
    NAMESPACE,
    VALIDATING_WEBHOOK_CONFIGURATION,
    Kind,
)

log = logging.getLogger(__name__)

_KINDS = (MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION)
_ALL = Page(EVERYTHING)


class Webhooks:
    """Calls the webhooks of the stored configurations."""

    def __init__(self, objects: Objects, send: Post = post) -> None:
        self._objects = objects
        self._send = send

    @property
    def are_configured(self) -> bool:
        """Whether there are any: all that a write pays where there are none is to ask this."""
        return any(self._objects.count(kind) for kind in _KINDS)

    def concern(self, asked: Attributes) -> bool:
        """Whether any webhook might see this write."""
        return any(is_ruled(hook, asked) for kind in _KINDS for hook in self._hooks(kind))

    async def mutate(self, asked: Attributes, warnings: list[str]) -> Object | None:
        """The object as the mutating webhooks make it; what they warn of is added to `warnings`.

        Raises Denied, or WebhookError for one that must not fail and did.
        """
        hooks = self._hooks(MUTATING_WEBHOOK_CONFIGURATION)
        state = _Mutation(asked)
        for index, hook in enumerate(hooks):
            if self._is_called(hook, state.asked):
                await self._mutate(state, index, hook, warnings)
        # Once more, and only once, for those that asked to see what others changed after them.
        for index, hook in enumerate(hooks):
            if index in state.again and self._is_called(hook, state.asked):
                await self._mutate(state, index, hook, warnings)
        return state.asked.new

    async def validate(self, asked: Attributes, warnings: list[str]) -> None:
        """Call the validating webhooks, all at once. Raises like `mutate`, the first error."""
        hooks = [
            hook for hook in self._hooks(VALIDATING_WEBHOOK_CONFIGURATION) if self._is_called(hook, asked)
        ]
        errors: dict[int, ApiError] = {}

        async def call(index: int, hook: Hook) -> None:
            try:
                answer = await self._call(hook, asked, warnings, is_mutating=False)
                if answer is not None and not answer.is_allowed:
                    raise Denied(hook.name, answer.result)
            except ApiError as error:
                errors[index] = error

        async with anyio.create_task_group() as group:
            for index, hook in enumerate(hooks):
                group.start_soon(call, index, hook, name=f"apiserver: webhook {hook.name}")
        if errors:
            raise errors[min(errors)]

    async def _mutate(self, state: _Mutation, index: int, hook: Hook, warnings: list[str]) -> None:
        answer = await self._call(hook, state.asked, warnings, is_mutating=True)
        is_changed = False
        if answer is not None:
            if not answer.is_allowed:
                raise Denied(hook.name, answer.result)
            is_changed = state.change(hook, answer.patch)
        state.called(index, hook, is_changed=is_changed)

    async def _call(
        self, hook: Hook, asked: Attributes, warnings: list[str], *, is_mutating: bool
    ) -> Verdict | None:
        """The webhook's answer; None if there is none and it may fail."""
        uid = str(uuid.uuid4())
        try:
            body = await self._send(hook, encode(review(asked, uid)))
            try:
                found = verdict(body, uid, is_mutating=is_mutating)
            except ValueError as error:
                raise CallFailed(f"received invalid webhook response: {error}") from error
        except CallFailed as error:
            text = f'failed calling webhook "{hook.name}": {error}'
            if not hook.is_optional:
                raise WebhookError(text) from error
            log.warning("%s; its failurePolicy is Ignore", text)
            return None
        warnings += found.warnings
        return found

    def _is_called(self, hook: Hook, asked: Attributes) -> bool:
        return is_ruled(hook, asked) and is_selected(hook, asked, self._namespace_labels)

    def _namespace_labels(self, name: str) -> Mapping[str, str]:
        labels = self._objects.get(NAMESPACE, "", name)["metadata"].get("labels") or {}
        return {"kubernetes.io/metadata.name": name, **labels}

    def _hooks(self, kind: Kind) -> Sequence[Hook]:
        if not self._objects.count(kind):
            return ()
        # The store lists by name, and a configuration's own order counts within it.
        return [hook for raw in self._objects.page(kind, "", _ALL).items for hook in hooks_of(raw)]


class _Mutation:
    """A write on its way through the mutating webhooks: the object so far, and who is to be asked again."""

    def __init__(self, asked: Attributes) -> None:
        self.asked = asked
        self.again: set[int] = set()
        self._reinvocable: set[int] = set()

    def change(self, hook: Hook, patch: object) -> bool:
        """Apply a webhook's patch; whether that changed anything. Raises WebhookError for one that does not fit."""
        old = self.asked.new
        if not patch:
            return False
        if old is None:
            raise WebhookError(
                f'admission webhook "{hook.name}" attempted to modify the object, '
                "which is not supported for this operation"
            )
        try:
            new = json_patch(old, patch)
        except ApiError as error:
            raise WebhookError(f'admission webhook "{hook.name}": {error.message}') from error
        if not isinstance(new.get("metadata"), dict):
            raise WebhookError(f'admission webhook "{hook.name}" left an object without metadata')
        self.asked = replace(self.asked, new=new)
        return new != old

    def called(self, index: int, hook: Hook, *, is_changed: bool) -> None:
        """A change, in either pass, concerns all that were called so far and ask to be called again."""
        if is_changed:
            self.again |= self._reinvocable
        if hook.is_reinvoked:
            self._reinvocable.add(index)
