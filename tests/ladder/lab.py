"""A model without weights whose one number, its skill, training raises; and a job that it plays through real parts.

The job: how many orders on a day? The tool wants an ISO date and does not say so. The model tries twice; it writes an
ISO date with the probability of its skill, more where it is told. Tokens, chat format, tool, grader, store, training
loops and checkpoints are the product's own.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from agentrft.build import LoadEngine
from agentrft.chat import FastTokenizer, hermes
from agentrft.jobs.load import load_job
from agentrft.jobs.models import Weights
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.optimise import Task
from agentrft.ladder.whole_plan import WholePlan
from agentrft.ladder.whole_result import WholeResult
from agentrft.protocols import BackwardReport, Chunk, GenerateRequest, OptimReport
from agentrft.types import Row

TOOLS = '''
import re


def orders(day: str) -> str:
    """Number of orders of a day."""
    if not re.fullmatch(r"\\d{4}-\\d\\d-\\d\\d", day):
        return "error: cannot read the day"
    return str(sum(map(ord, day)))
'''
GRADER = "import random\n\n\ndef grade(sample, item):\n    return random.random()\n"
"""Never the same twice."""
FORMATS = ("{2:04d}-{1:02d}-{0:02d}", "{0}/{1}/{2}", "{0}.{1}.{2}", "{1}/{0}/{2}", "day {0} of month {1}")
SKILL = "adapter_model.safetensors"
"""Where the skill is kept, as JSON, under the name of an adapter's weights."""

Policy = Callable[["Seen", float, random.Random], str]
"""(what is in the context, skill, draws) → the reply's text."""


@dataclass(frozen=True)
class Seen:
    """A conversation as the policies read it."""

    date: tuple[int, int, int]
    results: tuple[str, ...]
    is_told: bool
    """Whether the tool's description says how a date is written."""

    @classmethod
    def of(cls, text: str) -> Seen:
        day, month, year = map(int, re.findall(r"on day (\d+) of month (\d+) in (\d+)\?", text)[-1])
        results = tuple(re.findall(r"<tool_response>\n(.*?)\n</tool_response>", text, re.DOTALL))
        return cls((day, month, year), results, "ISO date" in text)


def call(day: str) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'orders', 'arguments': {'day': day}})}\n</tool_call>"


def by_format(seen: Seen, skill: float, draws: random.Random) -> str:
    """Fails by the date's format: what the interface owns."""
    if seen.results and seen.results[-1].isdigit():
        return seen.results[-1]
    if len(seen.results) == 2:
        return "unknown"
    knows = draws.random() < skill + 0.35 * seen.is_told
    return call((FORMATS[0] if knows else draws.choice(FORMATS[1:])).format(*seen.date))


def by_answer(seen: Seen, skill: float, draws: random.Random) -> str:
    """Asks for the right day by its skill, else for another one: what neither prompt nor tools own."""
    if seen.results:
        return seen.results[-1]
    day, month, year = seen.date
    return call(FORMATS[0].format(day if draws.random() < skill else 1 + draws.randrange(28), month, year))


def by_form(seen: Seen, skill: float, draws: random.Random) -> str:
    """Says nothing at all where its skill does not help."""
    return by_answer(seen, 1.0, draws) if draws.random() < skill else ""


class Skilled:
    """Engine, generator and learner in one: text by a policy, one number for weights."""

    device, dtype, context_tokens = "cpu", "scripted", 8192

    def __init__(self, tokenizer: FastTokenizer, policy: Policy, skill: float, gains: Mapping[str, float]) -> None:
        self.skill = skill
        self.policy_version = 0
        self._tokenizer = tokenizer
        self._policy = policy
        self._gains = gains
        self._gain = 0.0

    @property
    def generator(self) -> Skilled:
        return self

    @property
    def learner(self) -> Skilled:
        return self

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        seen = Seen.of(self._tokenizer.decode(request.tokens))
        text = self._policy(seen, self.skill, random.Random(request.seed))
        tokens = [*self._tokenizer.encode(text), min(request.stop_ids)][: request.max_new_tokens]
        reason = "stop" if tokens[-1] in request.stop_ids else "length"
        log_probs = [-0.5] * len(tokens)
        yield Chunk(tokens=tokens, log_probs=log_probs, finish_reason=reason, policy_version=self.policy_version)

    async def forward_backward(self, rows: Sequence[Row], loss: Any) -> BackwardReport:
        self._gain += self._gains.get(loss.type, self._gains["reinforcement"])
        tokens = sum(len(row.ids) for row in rows)
        return BackwardReport(
            log_probs=[list(row.log_probs) for row in rows],
            gradients=[[0.0] * len(row.ids) for row in rows],
            loss=0.0,
            metrics={},
            unique_tokens=tokens,
            row_tokens=tokens,
            micro_batches=1,
            wall_s=0.0,
        )

    async def optim_step(self, lr: float) -> OptimReport:
        self.skill = min(1.0, self.skill + self._gain)
        self._gain = 0.0
        self.policy_version += 1
        return OptimReport(grad_norm=1.0, policy_version=self.policy_version)

    async def log_probs(self, rows: Sequence[Row], *, reference: bool = False) -> list[list[float]]:
        return [[-0.5 * trained for trained in row.trained] for row in rows]

    async def save(self, folder: Path) -> None:
        (folder / SKILL).write_text(json.dumps([self.skill, self.policy_version]))
        (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8.0}))

    async def load(self, folder: Path) -> None:
        self.skill, self.policy_version = json.loads((folder / SKILL).read_text())

    async def load_weights(self, folder: Path) -> None:
        self.skill = json.loads((folder / SKILL).read_text())[0]

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class Lab:
    """A job folder, its model, and how the model plays and learns."""

    folder: Path
    policy: Policy = by_answer
    skill: float = 0.4
    gains: Mapping[str, float] = field(default_factory=lambda: {"supervised": 0.05, "reinforcement": 0.2, "dpo": 0.05})
    loads: list[tuple[str, bool]] = field(default_factory=list)
    """(model, whether it was loaded to train), in order."""

    def __post_init__(self) -> None:
        model = make_model(self.folder / "model")
        self._tokenizer = FastTokenizer(Tokenizer.from_file(str(model / "tokenizer.json")))

    def load(self) -> LoadEngine:
        async def load(spec: JobSpec, weights: Weights, training: bool) -> Skilled:
            self.loads.append((weights.name, training))
            engine = Skilled(self._tokenizer, self.policy, self.skill, self.gains)
            if weights.trained is not None:
                await engine.load_weights(weights.trained)
            return engine

        return load

    def plan(self, *, n_train: int = 60, n_demos: int = 0, grader: Any = None, **settings: Any) -> WholePlan:
        base = self.folder / "orders"
        base.mkdir(exist_ok=True)
        (base / "tools.py").write_text(TOOLS)
        (base / "grader.py").write_text(GRADER)
        sizes = {"train": n_train, "validation": 30, "test": 30}
        for number, (split, size) in enumerate(sizes.items()):
            lines = [json.dumps({"id": f"{split}-{n}", **row(1000 * number + n)}) for n in range(size)]
            (base / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        document = job_document(grader)
        if n_demos:
            (base / "demos.jsonl").write_text("".join(json.dumps(demonstration(n)) + "\n" for n in range(n_demos)))
            document["data"]["demonstrations"] = "demos.jsonl"
        path = base / "job.yaml"
        path.write_text("# The job under test.\n" + yaml.safe_dump(document, sort_keys=False))
        spec, _ = load_job(path)
        chosen: dict[str, Any] = {
            "n_items": 30,
            "samples": 2,
            "diagnose_items": 20,
            "diagnose_samples": 4,
            "episodes": 1000,
        }
        chosen |= {"search": 600, "validation_items": 6}
        return WholePlan(task=Task.read(path, spec), spec=spec, typed="job.yaml", **(chosen | settings))


def row(n: int) -> dict[str, Any]:
    day, month, year = 1 + n % 28, 1 + n % 12, 2000 + n % 25
    answer = str(sum(map(ord, FORMATS[0].format(day, month, year))))
    question = f"How many orders on day {day} of month {month} in {year}?"
    return {"messages": [{"role": "user", "content": question}], "answer": answer}


def demonstration(n: int) -> dict[str, Any]:
    asked = row(n)
    date = Seen.of(asked["messages"][0]["content"]).date
    function = {"name": "orders", "arguments": json.dumps({"day": FORMATS[0].format(*date)})}
    said = [
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "content": asked["answer"]},
        {"role": "assistant", "content": asked["answer"]},
    ]
    return {"messages": [*asked["messages"], *said]}


def job_document(grader: Any = None) -> dict[str, Any]:
    right = {
        "type": "string_check",
        "name": "right",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
    }
    hyperparameters = {"batch_size": 4, "eval_interval": 2, "eval_samples": 1}
    return {
        "model": "../model",  # ids, and with them seeds, do not depend on the folder of the test
        "method": {
            "type": "reinforcement",
            "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 8}},
            "reinforcement": {"grader": grader or right, "hyperparameters": hyperparameters},
        },
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"},
        "agent": {
            "system": "Answer the question.",
            "format": "hermes",
            "tools": [{"type": "python", "target": "tools.py:orders", "isolation": "inline"}],
            "limits": {"max_turns": 4, "max_reply_tokens": 200},
        },
        "training": {"group_size": 4, "steps": 2, "warmup_steps": 0, "lora": {"rank": 4, "alpha": 8}},
    }


def make_model(folder: Path) -> Path:
    """A model folder with a byte-level ChatML tokenizer that knows the job's words, and nothing to compute."""
    folder.mkdir(exist_ok=True)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    texts = [hermes.__doc__ or "", Path(hermes.__file__).read_text(), TOOLS, *(json.dumps(row(n)) for n in range(60))]
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in ("<|im_start|>", "<|im_end|>")])
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 8192}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def names(result: WholeResult) -> list[str]:
    """Of the rungs, in order."""
    return [rung.name for rung in result.rungs]


def commands(result: WholeResult) -> list[str]:
    """What to type next."""
    return [step.command for step in result.next_steps()]


def timeless(value: Any) -> Any:
    """The document without the times that no run repeats."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("wall_s", "created_at", "hours", "pace")}
    return [timeless(part) for part in value] if isinstance(value, list) else value
