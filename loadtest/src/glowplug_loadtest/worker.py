"""`python -m glowplug_loadtest.worker FOLDER INDEX`: one process that sends, under locust and gevent.

It says `ready` on stdout when it has its connections and references, then reads from stdin at which second of the
monotonic clock to start, and leaves its records in FOLDER. What keeps it from getting ready is said as `error TEXT`.
A SIGINT, a SIGTERM, or the end of stdin ends the sending; the records so far are written.
"""

from __future__ import annotations

# Patches the standard library, so it comes first.
import locust  # isort: skip

import json
import pathlib
import signal
import sys

import gevent
import gevent.socket
from locust.env import Environment

from glowplug.errors import GlowplugError
from glowplug_loadtest import plan as plans
from glowplug_loadtest import records
from glowplug_loadtest.shapes import shape_of
from glowplug_loadtest.users import V2User, user_of

__all__ = ["locust", "main"]


def main(folder: pathlib.Path, index: int) -> int:
    """The exit code: 1 where it did not get ready."""
    plan = plans.read(folder / "plan.json")
    bodies = json.loads((folder / "bodies.json").read_text())
    try:
        user = user_of(plan).prepared(plan, bodies, index)
    except GlowplugError as error:
        print(f"error {error.message}", flush=True)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, user.loop.stop)
    print("ready", flush=True)
    line = sys.stdin.readline()
    if not line.strip():
        return 1
    user.start_at = float(line)
    gevent.spawn(_stop_when_left_alone, user)
    _run(user)
    records.write(user.records, folder / f"requests-{index}.csv")
    return 0


def _stop_when_left_alone(user: type[V2User]) -> None:
    # Our end of the pipe has nothing to read until whoever started us is gone.
    gevent.socket.wait_read(sys.stdin.fileno())
    user.loop.stop()


def _run(user: type[V2User]) -> None:
    environment = Environment(user_classes=[user], shape_class=shape_of(user.plan.profile)())
    runner = environment.create_local_runner()
    runner.start_shape()
    assert runner.shape_greenlet is not None
    runner.shape_greenlet.join()
    runner.quit()
    user.caller.close()


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), int(sys.argv[2])))
