"""A server reduced to its scheduler: `server_process.py CONCURRENCY`, on the store of `AGENTRFT_HOME`; to be killed."""

import asyncio
import sys

from agentrft.runtime.local import LocalRuntime
from agentrft.runtime.processes import this_owner
from agentrft.runtime.scheduler import Scheduler
from agentrft.store import open_store


async def main(concurrency: int) -> None:
    scheduler = Scheduler(
        open_store(), LocalRuntime(threads=1), owner=this_owner(), concurrency=concurrency, max_restarts=10_000
    )
    await scheduler.run()


asyncio.run(main(int(sys.argv[1])))
