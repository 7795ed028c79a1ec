"""`$(VAR)` as Kubernetes expands it in commands, arguments and environment values.

Not a shell: only `$(NAME)` is a reference, `$$` is a literal dollar, and what is not defined stays as written.
https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` with every defined `$(NAME)` replaced, once, and `$$` unescaped."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "$"
        return variables.get(name, match.group(0))

    return _REFERENCE.sub(value, text)
