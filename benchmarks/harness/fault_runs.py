"""Plays the detectors' benchmark with the real small model, through the product's own rollout, and keeps the episodes.

One file a run (task, fault, seed) under ~/.cache/agentrft-bench/detectors/runs: played once, read ever after.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from agentrft import build
from agentrft.chat import pick_format
from agentrft.engines.models import load_tokenizer
from agentrft.jobs.load import load_job
from agentrft.jobs.models import find_weights
from agentrft.jobs.rows import items_of
from agentrft.jobs.spec import JobSpec
from agentrft.protocols import EpisodeRecord, Grader
from agentrft.rollout import Agent, GeneratorActor, Rollout, Seat, run_groups
from agentrft.store.codec import to_json
from agentrft.tools import JobTools, Shaping, ToolLimits
from agentrft.tools.python_files import PythonFiles
from agentrft.tools.python_tool import load_python_source
from agentrft.types import Grade, Item, Sample
from harness.failing_tools import FailingSource, Log
from harness.fault_table import FAULTS, Fault
from harness.forced_replies import forced
from harness.forcing import ForcingGenerator

ROOT = Path.home() / ".cache" / "agentrft-bench" / "detectors"
EXAMPLES = Path(__file__).parents[2] / "examples"
TEMPERATURE = 0.5
"""So that a warmed-up 135M model solves half of its items: detectors that compare need episodes of both kinds."""
_DEPOT = '''

class Tools(Depot):
    """The depot as tools of one episode, in this process."""

    def __init__(self, item: dict) -> None:
        super().__init__(item["parcels"])
'''


def task_file(task: str) -> Path:
    """The task's job file in a copy of the example; parcels gets its tools in this process instead of over HTTP."""
    folder = ROOT / "tasks" / task
    if not (folder / "job.yaml").exists():
        shutil.copytree(EXAMPLES / task, folder, ignore=shutil.ignore_patterns("__pycache__"))
        if task == "parcels":
            depot = folder / "depot.py"
            depot.write_text(depot.read_text(encoding="utf-8") + _DEPOT, encoding="utf-8")
            job = yaml.safe_load((folder / "job.yaml").read_text(encoding="utf-8"))
            job["agent"]["tools"] = [{"type": "python", "target": "depot.py:Tools", "isolation": "inline"}]
            (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
    return folder / "job.yaml"


def warm_model(task: str) -> str:
    """Name of the model after the task's supervised stage: trained once, by `agentrft run --method supervised`."""
    note = ROOT / "tasks" / task / "model.txt"
    if not note.exists():
        code = "from agentrft.cli import main; main()"
        command = [sys.executable, "-c", code, "run", str(task_file(task)), "--method", "supervised"]
        said = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
        found = re.search(r"trained model: (\S+)", said)
        assert found, said
        note.write_text(found[1], encoding="utf-8")
    return note.read_text(encoding="utf-8").strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A task's loaded model."""

    spec: JobSpec
    base_dir: Path
    engine: build.Engine
    chat_format: Any
    items: Sequence[Item]


def run_file(task: str, fault: str, seed: int) -> Path:
    return ROOT / "runs" / f"{task}-{fault.replace(' ', '_')}-seed{seed}.json.z"


async def play_task(task: str, seeds: Sequence[int], names: Sequence[str]) -> None:
    """Every run of the task that is not there yet."""
    todo = [(f, s) for f in FAULTS for s in seeds if task in f.tasks and (not names or f.name in names)]
    todo = [(fault, seed) for fault, seed in todo if not run_file(task, fault.name, seed).exists()]
    if not todo:
        return
    spec, base_dir = load_job(task_file(task))
    weights = find_weights(warm_model(task), base_dir=base_dir)
    engine = await build.load_engine(spec, weights, False)
    try:
        chat_format = pick_format(load_tokenizer(weights.folder), spec.agent.format)
        items = items_of(spec, base_dir, "test")
        stage = Stage(spec=spec, base_dir=base_dir, engine=engine, chat_format=chat_format, items=items)
        for fault, seed in todo:
            document = await play(stage, task, fault, seed)
            path = run_file(task, fault.name, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".tmp")
            draft.write_bytes(zlib.compress(json.dumps(document).encode(), level=6))
            draft.replace(path)
            print(f"{task} {fault.name} seed {seed}: {document['summary']}", flush=True)
    finally:
        await engine.close()


async def play(stage: Stage, task: str, fault: Fault, seed: int) -> dict[str, Any]:
    """One run as plain data."""
    log, rng = Log(), random.Random(f"{task}/{fault.name}/{seed}")
    start = 40 * seed
    items, defects = _items(stage.items[start : start + fault.items], task, fault, seed, rng)
    limits = dict(fault.limits)
    if limits.get("max_episode_tokens") == 0:
        limits["max_episode_tokens"] = _tight(stage, items)
    tools = _tools(stage, task, fault, seed, log, limits)
    run = f"{task}/{fault.name}/{seed}"
    touched: set[tuple[int, int]] = set()
    grader = build.grader_of(stage.spec, stage.base_dir)
    assert grader is not None
    graded_by = _FailingGrader(grader, fault.grader, log, seed) if fault.grader else grader
    agent = Agent(
        actor=GeneratorActor(
            generator=_generator(stage, task, fault, seed, items, touched),
            chat_format=stage.chat_format,
            temperature=TEMPERATURE,
        ),
        tools=tools,
        limits=replace(build.limits_of(stage.spec), **{k: v for k, v in limits.items() if not k.startswith("tool_")}),
    )
    try:
        seats = [Seat(index=index, item=item) for index, item in enumerate(items)]
        groups = await run_groups(Rollout(run=run, step=0, members=fault.members, seats=seats), agent, graded_by)
    finally:
        await tools.close()
        await grader.close()
    episodes = []
    for index, group in enumerate(groups):
        for member, (episode, grade) in enumerate(zip(group.episodes, group.grades, strict=True)):
            kinds = set(log.touched.get(episode.trace_id, ()))
            kinds |= {fault.kind} if (index, member) in touched or group.item.id in defects else set()
            kept = replace(episode, tokens=None)
            record = EpisodeRecord(job_id=run, phase="test", stage="sft", episode=kept, grade=grade, reward=grade.value)
            episodes.append(
                {
                    "record": to_json(record),
                    "injected": sorted(kinds - {""}),
                    "raw": log.raw.get(episode.trace_id, []),
                    "messages": log.messages.get(episode.trace_id, []),
                }
            )
    in_force = {**stage.spec.agent.limits.model_dump(), **limits}
    values = [e["record"]["grade"]["value"] for e in episodes]
    solved = sum(value is not None and value >= build.pass_threshold_of(stage.spec) for value in values)
    n_injected = sum(bool(e["injected"]) for e in episodes)
    return {
        "task": task,
        "fault": fault.name,
        "kind": fault.kind,
        "seed": seed,
        "pass_threshold": build.pass_threshold_of(stage.spec),
        "limits": in_force,
        "tools": [dataclasses.asdict(spec) for spec in tools.specs],
        "items": [dataclasses.asdict(item) for item in items],
        "episodes": episodes,
        "summary": f"{len(episodes)} episodes, {solved} solved, {n_injected} injected",
    }


def _items(
    items: Sequence[Item], task: str, fault: Fault, seed: int, rng: random.Random
) -> tuple[list[Item], frozenset[str]]:
    """The items as they are played, and the ids of those that got a defect."""
    if fault.on_item is None:
        return list(items), frozenset()
    made = [(item, fault.on_item(task, seed, item, rng)) for item in items]
    return [new or old for old, new in made], frozenset(old.id for old, new in made if new is not None)


def _tools(stage: Stage, task: str, fault: Fault, seed: int, log: Log, limits: dict[str, Any]) -> JobTools:
    files, sources = PythonFiles(stage.base_dir), {}
    for position, binding in enumerate(stage.spec.agent.tools):
        param = f"agent.tools.{position}"
        sources[param] = FailingSource(
            load_python_source(binding, files, param=param),
            log,
            kind=fault.kind,
            seed=seed,
            on_call=fault.on_call(task, seed) if fault.on_call else None,
            **({"on_spec": fault.on_spec(task, seed)} if fault.on_spec else {}),
            twin=fault.twin if position == 0 else None,
        )
    own = stage.spec.agent.limits
    tool_limits = ToolLimits(
        timeout_s=limits.get("tool_timeout_s", own.tool_timeout_s),
        output_tokens=limits.get("tool_output_tokens", own.tool_output_tokens),
        count_tokens=lambda text: len(stage.chat_format.tokenizer.encode(text)),
    )
    tokens = stage.chat_format.tokenizer.control_tokens
    return JobTools(sources, tool_limits, shaping=Shaping(template_tokens=tokens))


def _generator(
    stage: Stage, task: str, fault: Fault, seed: int, items: Sequence[Item], touched: set[tuple[int, int]]
) -> Any:
    if not fault.force:
        return stage.engine.generator
    tokenizer = stage.chat_format.tokenizer
    force = forced(fault.force, task, seed, items, touched.add)
    return ForcingGenerator(stage.engine.generator, tokenizer, min(stage.chat_format.stop_ids), force)


def _tight(stage: Stage, items: Sequence[Item]) -> int:
    """Room for the longest prompt and about one call with its result."""
    specs = [spec for binding in stage.spec.agent.tools for spec in _specs(stage, binding)]
    return max(len(stage.chat_format.prompt(item.messages, specs)) for item in items) + 42


def _specs(stage: Stage, binding: Any) -> Sequence[Any]:
    return load_python_source(binding, PythonFiles(stage.base_dir), param="agent.tools").specs


class _FailingGrader:
    """The task's grader, but that it raises now and then, or wobbles."""

    def __init__(self, inner: Grader, way: str, log: Log, seed: int) -> None:
        self._inner, self._way, self._log, self._seed = inner, way, log, seed

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        rng = random.Random(f"{self._way}/{self._seed}/{trace_id}")
        grade = await self._inner.grade(sample, item, trace_id)
        if self._way == "raises" and rng.random() < 0.3:
            self._log.touch(trace_id, "grader_fault")
            raise (KeyError, ZeroDivisionError)[self._seed]("answer")
        if self._way == "noisy" and grade.value is not None:
            self._log.touch(trace_id, "grader_fault")
            grade = replace(grade, value=min(max(grade.value + rng.uniform(-0.2, 0.2), 0.0), 1.0))
        return grade

    async def close(self) -> None:
        await self._inner.close()


def play_all(tasks: Sequence[str], seeds: Sequence[int], names: Sequence[str] = ()) -> None:
    """Play what is missing, task by task; the warmed-up models live in a home of their own."""
    os.environ["AGENTRFT_HOME"] = str(ROOT / "home")
    for task in tasks:
        asyncio.run(play_task(task, seeds, names))
