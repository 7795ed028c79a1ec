"""The process that compares, as the machine sees it: whatever it does, the machine goes on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import anyio
import pytest

from glowplug.shadow import ShadowConfig, Shadows
from glowplug.spec.routes import RouteEntry, RouteTable, Shadow

SHADOWED = RouteTable(
    (RouteEntry("default", "flights", ("flights",), (), (), shadow=Shadow("default/flights-00002", 100.0)),)
)
# Says more than any report in one line, then waits for the end of its input.
TALKS = "#!/bin/sh\nhead -c 17000000 /dev/zero\nexec cat > /dev/null\n"


async def test_a_process_that_says_too_much_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "talks"
    program.write_text(TALKS)
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    started: asyncio.Queue[int] = asyncio.Queue()
    config = ShadowConfig(restart_backoff_s=0.01, stop_timeout_s=30.0)
    shadows = Shadows(config, on_pid=started.put_nowait)
    shadows.publish(SHADOWED)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shadows.run, tmp_path / "copies", tmp_path / "shadow")
        with anyio.fail_after(60):
            assert await started.get() != await started.get()
        tasks.cancel_scope.cancel()
