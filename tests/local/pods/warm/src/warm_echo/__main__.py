"""`/` says what the process is; `/exit/N` ends it. There is no guard: whoever imports this module serves for ever."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from warm_echo import heavy


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/exit/"):
            print("leaving with", self.path[6:], flush=True)
            os._exit(int(self.path[6:]))
        body = json.dumps(describe()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def describe() -> dict[str, object]:
    main = sys.modules["__main__"]
    return {
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "is_leader": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "parent": os.getppid(),
        "main": [__name__, main.__name__, main.__spec__.name, main.__dict__ is globals()],
        "signals": {
            number: str(signal.getsignal(number)) for number in range(1, 32) if number not in (9, 19)
        },
        "mask": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "handles": {number: os.readlink(f"/proc/self/fd/{number}").split(":")[0] for number in (0, 1, 2)},
        "path": sys.path,
        "scheduler": os.sched_getscheduler(0),
        "is_forked": os.getpid() != heavy.IMPORTED_IN,
        "mode": heavy.MODE,
        "version": heavy.VERSION,
        "drawn": random.random(),
    }


print("listening", flush=True)
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
