"""A server whose workers are scripts in its own process: `queue_server.py STORE_URL LOG`; to be killed with them."""

import os
import sys
import time

from agentrft.clock import SYSTEM_CLOCK
from agentrft.runtime import processes
from agentrft.runtime.scheduler import Scheduler
from agentrft.store import open_store
from agentrft.testing import ScriptedDisk, ScriptedMachine, ScriptedRuntime, ScriptedWorker


class QueueRuntime(ScriptedRuntime):
    """Its owners begin with the name of the process that they are part of."""

    def is_gone(self, owner: str) -> bool:
        return processes.is_gone(":".join(owner.split(":")[:3]))


def main(url: str, log: str) -> None:
    store = open_store(url)
    disk = ScriptedDisk()
    machine = ScriptedMachine(processes.this_owner(), ScriptedWorker(store, SYSTEM_CLOCK, disk, steps=2, interval=2))
    runtime = machine.boot(QueueRuntime)
    scheduler = Scheduler(store, runtime, owner=runtime.owner, concurrency=8, max_restarts=10_000)
    told = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    written = 0
    while True:
        scheduler.attend()
        machine.advance()
        machine.forget()
        for job_id, token, step in disk.commits[written:]:
            os.write(told, f"{job_id} {token} {step}\n".encode())
        written = len(disk.commits)
        if not machine.living:
            time.sleep(0.02)


main(*sys.argv[1:])
