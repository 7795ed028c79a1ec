"""One download, in a process of its own: `python -m glowplug.supervisor.download URI DIR`.

kserve-storage brings boto3, the Google and Azure clients and more: half a second and 100 MB that the machine's own
process must not pay, and network code that it can kill. Ends with one line on stdout, `digest <sha256>`, of everything
that is now in DIR.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

DIGEST = "digest "
_CHUNK = 1024 * 1024
# Bookkeeping that clients leave beside a model: not part of it.
NOT_MODEL = (".cache", ".huggingface")


def digest_of(folder: Path) -> str:
    """SHA-256 over the relative paths and contents of all files, in order of path."""
    total = hashlib.sha256()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        relative = path.relative_to(folder)
        if relative.parts[0] in NOT_MODEL:
            continue
        inner = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                inner.update(chunk)
        total.update(os.fsencode(relative.as_posix()) + b"\0" + inner.digest())
    return total.hexdigest()


def main(uri: str, folder: Path) -> int:
    """Download `uri` into `folder`. 0, or 1 with the reason as the last line."""
    from kserve_storage import Storage
    from kserve_storage.logging import configure_logging

    configure_logging()
    try:
        Storage.download(uri, str(folder))
    except Exception as error:
        # The top of this process: whatever a client raised is the one line that the user sees.
        print(f"{type(error).__name__}: {error}".strip(), flush=True)
        return 1
    if not any(folder.iterdir()):
        print("nothing was found there", flush=True)
        return 1
    print(DIGEST + digest_of(folder), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
