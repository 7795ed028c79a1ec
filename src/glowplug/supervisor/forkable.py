"""Which containers may be forked from a zygote, and which need an exec of their own. Pure.

What a process reads from its environment while it imports was read by the zygote long ago. So a container may be forked
only where every variable that matters then has the zygote's value: those that the zygote's imports were seen to read,
and those that the interpreter, the C library and native libraries read unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Read by native code at its start, where no Python code can see it.
_NATIVE = (
    "PYTHON", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "LC_", "LANG", "OPENBLAS_", "GOTO_", "BLIS_", "MKL_", "OMP_",
    "GOMP_", "KMP_", "NPY_", "NUMPY_", "GRPC_", "OPENSSL_", "ORT_", "CUDA_", "NCCL_",
)  # fmt: skip
# Not gRPC's, whatever it is called.
_OURS = frozenset({"GRPC_PORT"})
# A replica sets OpenBLAS's threads itself, and OpenMP's library is loaded with the model, after the fork.
_SET_LATER = frozenset({"OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"})
EVERYTHING = "*"


@dataclass(frozen=True)
class Imports:
    """What a zygote's imports depended on: its environment, and the names that were read from it.

    `has_openmp`: an OpenMP library has been loaded, which reads its variables then.
    """

    env: Mapping[str, str]
    names: frozenset[str]
    has_openmp: bool = False


def module_of(argv: Sequence[str], python: str) -> str | None:
    """The module of `python -m MODULE ...`; None for any other command."""
    words = tuple(argv)
    if len(words) < 3 or words[0] != python or words[1] != "-m" or words[2].startswith("-"):
        return None
    return words[2]


def why_not(env: Mapping[str, str], imports: Imports) -> str:
    """Why a container with `env` can't be forked, or "" if it can."""
    names = imports.names
    if EVERYTHING in names:
        return "its modules read the whole environment while they are imported"
    names = names | {name for name in (*env, *imports.env) if name.startswith(_NATIVE) and name not in _OURS}
    fixed = names - (_SET_LATER - {"OMP_NUM_THREADS"} if imports.has_openmp else _SET_LATER)
    different = sorted(name for name in fixed if env.get(name) != imports.env.get(name))
    return (
        f"{', '.join(different)} differ, which its modules read while they are imported" if different else ""
    )
