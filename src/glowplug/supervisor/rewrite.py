"""Text of a pod, made true on this computer: ports, mounted paths, and names of services.

Inside a real pod `/mnt/models`, `localhost:8081` and `flights.default` each mean something that only the pod's own
file system, network and DNS know. A process has none of these to itself, so the text is rewritten instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

# (namespace, service) -> "host:port" of a local listener, or None.
Resolve = Callable[[str, str], "str | None"]

_PORT = re.compile(
    r"((?<![\w-])--(?:http|grpc)_port[= ]+|(?<![\w.-])(?:localhost|127\.0\.0\.1|0\.0\.0\.0):)(\d{1,5})(?!\d)"
)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SERVICE = re.compile(
    rf"(?:(?<=://)|(?<![\w./-]))({_LABEL})\.({_LABEL})(?:\.svc(?:\.cluster\.local)?)?(?::80)?(?![\w-]|[.:]\w)"
)


class Rewriter:
    """Rewrites for one container. `mounts` maps mount paths to real ones; all mappings are by longest match."""

    def __init__(self, ports: Mapping[int, int], mounts: Mapping[str, str], resolve: Resolve) -> None:
        self._ports = ports
        self._mounts = {_normal(path): real for path, real in mounts.items()}
        self._resolve = resolve
        self._path = _path_pattern(self._mounts)

    def text(self, text: str) -> str:
        """`text` with services, ports and paths made real."""
        return self.paths(self.ports(_SERVICE.sub(self._service, text)))

    def ports(self, text: str) -> str:
        """`text` with port numbers made real. Idempotent, as no real port is also a named one."""
        return _PORT.sub(lambda match: match.group(1) + str(self.port(int(match.group(2)))), text)

    def port(self, number: int) -> int:
        """The real port behind a number of the pod; a number that the pod does not name stays."""
        return self._ports.get(number, number)

    def paths(self, text: str) -> str:
        """`text` with mounted paths made real. Not idempotent: a real path may hold a mounted one."""
        if self._path is None:
            return text
        return self._path.sub(lambda match: self._mounts[match.group(0)], text)

    def _service(self, match: re.Match[str]) -> str:
        if match.group(1).isdecimal() and match.group(2).isdecimal():
            return match.group(0)
        return self._resolve(match.group(2), match.group(1)) or match.group(0)


def _normal(path: str) -> str:
    return path.rstrip("/")


def _path_pattern(mounts: Mapping[str, str]) -> re.Pattern[str] | None:
    paths = sorted((re.escape(path) for path in mounts if path), key=len, reverse=True)
    if not paths:
        return None
    # A path begins where no other goes on: at the start, after `=`, a space or `file://`, not inside `/a/mnt/models`.
    return re.compile(rf"(?:(?<=://)|(?<![\w./)}}-]))(?:{'|'.join(paths)})(?![\w.-])")
