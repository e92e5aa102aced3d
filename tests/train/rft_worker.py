"""One life of a reinforcement job, as a process that may be killed: `rft_worker.py HOME FOLDER`.

Prints `ready` when it starts to train, and the outcome as JSON when it is done.
"""

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from agentrft.store import open_store
from agentrft.testing import ScriptedGrader
from agentrft.train import RftPlan, RunLog, rft
from agentrft.train.metrics import without_timing
from conftest import make_agent, make_items, make_learner, reward, warm


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(home: Path, folder: Path) -> None:
    store = open_store(home)
    if not store.list_jobs():
        store.create_job({"id": "ftjob-k"})
    learner = warm(make_learner(max_delay_s=0.01))
    agent = make_agent(learner, max_delay_s=0.01)
    plan = RftPlan(
        run="ftjob-k",
        folder=folder,
        items=make_items(12),
        validation=make_items(4, start=100),
        steps=20,
        batch_size=3,
        group_size=4,
        learning_rate=8.0,
        eval_interval=3,
    )
    say("ready")
    grader = ScriptedGrader(reward, max_delay_s=0.01)
    result = await rft.train(plan, learner, agent, grader, RunLog(store, "ftjob-k"))
    outcome = {
        "weights": [(state, values.tolist()) for state, values in sorted(learner.table.items())],
        "state": dict(result.last.state),
        "best": result.best.step,
        "metrics": [(m["step"], without_timing(m["metrics"])) for m in store.list_metrics("ftjob-k")],
    }
    say(json.dumps(outcome))
    store.close()


asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
