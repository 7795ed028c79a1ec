"""HTTP load by wrk: another row with each request, which h2load cannot send.

A server that sees one row again and again finds its trees' branches predicted: compiled trees then look a tenth cheaper
than they are. wrk counts a stall against all requests that it delayed (its correction for coordinated omission), so its
p99 is never too low. gRPC it does not speak.
"""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.environments import tool
from benchmarks.processes import Server
from benchmarks.protocols import Request, WrongAnswer

_LIMIT_S = 60
_SCRIPT = """
local requests, index = {}, 0
function init(args)
  for place, body in ipairs(BODIES) do requests[place] = wrk.format("POST", PATH, HEADERS[place], body) end
end
function request()
  index = index % #requests + 1
  return requests[index]
end
function done(summary, latency, all)
  local e = summary.errors
  io.write(string.format('\\n{"done":%d,"us":%d,"bytes":%d,"p50":%f,"p99":%f,"failed":%d}\\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.timeout + e.status))
end
"""


@dataclass(frozen=True)
class Volley:
    """What wrk found: requests answered in `seconds`, milliseconds, bytes with the heads."""

    done: int
    seconds: float
    p50_ms: float
    p99_ms: float
    received: int


def run(server: Server, sent: Sequence[Request], concurrency: int, seconds: float) -> Volley:
    """The rows in turn on each of `concurrency` connections, whole seconds. Raises `WrongAnswer` for any failure."""
    with tempfile.TemporaryDirectory(prefix="glowplug-load-") as folder:
        script = pathlib.Path(folder) / "rows.lua"
        script.write_text(_lua(sent))
        command = [
            tool("wrk"), "-t1", f"-c{concurrency}", f"-d{math.ceil(seconds)}s", "--timeout", "20s",
            "-s", str(script), f"http://127.0.0.1:{server.http_port}",
        ]  # fmt: skip
        try:
            output = subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=_LIMIT_S
            ).stdout
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise WrongAnswer(f"wrk: {error}") from error
    return parse(output)


def parse(output: str) -> Volley:
    """The line that the script ends with. Raises `WrongAnswer` for failures or no answers."""
    lines = [line for line in output.splitlines() if line.startswith('{"done"')]
    if not lines:
        raise WrongAnswer(f"wrk said: {output[-300:]!r}")
    found = json.loads(lines[0])
    if found["failed"] or not found["done"]:
        raise WrongAnswer(f"{found['failed']} requests failed, {found['done']} succeeded")
    return Volley(found["done"], found["us"] / 1e6, found["p50"] / 1000, found["p99"] / 1000, found["bytes"])


def _lua(sent: Sequence[Request]) -> str:
    bodies = ",".join(_quoted(each.body) for each in sent)
    heads = ",".join(
        "{"
        + ",".join(f"[{_quoted(k.encode())}]={_quoted(v.encode())}" for k, v in each.headers.items())
        + "}"
        for each in sent
    )
    path = _quoted(sent[0].path.encode())
    return f"BODIES = {{{bodies}}}\nHEADERS = {{{heads}}}\nPATH = {path}\n{_SCRIPT}"


def _quoted(content: bytes) -> str:
    """A Lua string of any bytes."""
    return '"' + "".join(f"\\{byte:03d}" for byte in content) + '"'
