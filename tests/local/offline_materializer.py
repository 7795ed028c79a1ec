"""A process of its own that materializes a store's group, batch by batch, as fast as it is told: to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import anyio

from glowplug.features.offline import open_store
from glowplug.features.offline_materialize import Range, materialize
from glowplug.features.online import OnlineConfig
from glowplug.features.parse import read_view


def main(view: str, store_url: str, redis_url: str, group: str, stop_ms: str, is_incremental: str) -> None:
    def progress(group: str, done: int, total: int) -> None:
        print(done, total, flush=True)
        # Time to be killed between any two batches.
        time.sleep(0.02)

    async def run() -> None:
        with open_store(read_view(Path(view)), store_url) as store:
            ranges = {group: Range(int(stop_ms))}
            config = OnlineConfig(redis_url)
            await materialize(
                store, config, ranges, progress, 100, incremental=is_incremental == "incremental"
            )

    anyio.run(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
