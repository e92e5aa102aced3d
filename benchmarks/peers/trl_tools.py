"""TRL's GRPOTrainer as a worker: one rollout of the look-up task, tool calls included, for each request.

Runs inside TRL's own environment. The trainer is TRL's, unmodified, with `tools=[…]`; what is timed is its method that
makes a batch's completions (all turns, the tools between them) and their rewards. It is called outside `train()`, so
that nobody waits for an optimiser step.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import get_json_schema
from trl import GRPOConfig, GRPOTrainer

from harness.lookup import ANSWER, CALLS, TOOL, digest, found, messages_for, pairs
from harness.pipe import Pipe, serve


class Latency:
    """Seconds that the tools wait; set before each rollout."""

    seconds = 0.0


def sleeping(latency: Latency) -> Callable[..., str]:
    """The tool as a function that blocks; described as `lookup.TOOL`."""

    # No return annotation: transformers would describe it to the model.
    def look_up(name: str):
        """Say where something is kept.

        Args:
            name: What to look for.
        """
        time.sleep(latency.seconds)
        return found(name)

    return look_up


def waiting(latency: Latency) -> Callable[..., Coroutine[Any, Any, str]]:
    """The tool as a function that lets others run meanwhile; described as `lookup.TOOL`."""

    async def look_up(name: str):
        """Say where something is kept.

        Args:
            name: What to look for.
        """
        await asyncio.sleep(latency.seconds)
        return found(name)

    return look_up


class Watch:
    """The reward function, which also counts calls: it is where TRL shows whole conversations."""

    __name__ = "watch"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, completions: list[list[dict[str, Any]]], **_: Any) -> list[float]:
        self.calls = [sum(len(m.get("tool_calls") or ()) for m in messages) for messages in completions]
        return [float(messages[-1]["content"] == ANSWER) for messages in completions]


def build(options: argparse.Namespace, tool: Callable[..., Any], watch: Watch) -> GRPOTrainer:
    """The trainer for one tool and one configuration of the sweep; everything not named here is TRL's default."""
    assert get_json_schema(tool) == TOOL, get_json_schema(tool)
    setting: dict[str, Any] = json.loads(options.config)
    dtype = setting.pop("model_dtype", "float32")
    config = GRPOConfig(
        output_dir=str(Path(options.scratch) / "trl-tools"),
        use_cpu=True,
        per_device_train_batch_size=options.episodes,
        # A group is two members at least; rewards alone look at it.
        num_generations=2,
        # TRL has one limit for all turns and tool results together, ours one for a reply.
        max_completion_length=options.completion,
        model_init_kwargs={"dtype": dtype, "attn_implementation": "sdpa"},
        beta=0.0,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **{"bf16": False, "gradient_checkpointing": False, **setting},
    )
    trainer = GRPOTrainer(
        model=str(options.model),
        reward_funcs=watch,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": messages_for(pair)} for pair in pairs(options.episodes, 0)]),
        processing_class=AutoTokenizer.from_pretrained(options.model),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        tools=[tool],
    )
    trainer.model.train()  # as it is when `train()` asks for a batch
    return trainer


class Player:
    """Keeps one trainer for each kind of tool, made when it is first asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._latency = Latency()
        self._tools = {"sync": sleeping(self._latency), "async": waiting(self._latency)}
        self._trainers: dict[str, tuple[GRPOTrainer, Watch]] = {}

    def trainer(self, kind: str) -> tuple[GRPOTrainer, Watch]:
        """The trainer whose tool is of that kind."""
        if kind not in self._trainers:
            watch = Watch()
            self._trainers[kind] = (build(self._options, self._tools[kind], watch), watch)
        return self._trainers[kind]

    def rollout(self, request: dict[str, Any]) -> dict[str, Any]:
        """Play every episode once; seconds, generated tokens, calls, and a digest of the prompts."""
        trainer, watch = self.trainer(request["kind"])
        self._latency.seconds = request["latency_s"]
        torch.manual_seed(request["seed"])
        rows = [{"prompt": messages_for(pair)} for pair in pairs(self._options.episodes, request["seed"])]
        started = time.perf_counter()
        batch = trainer._generate_and_score_completions(rows)
        wall_s = time.perf_counter() - started
        prompts = [
            ids[mask.bool()].tolist() for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
        ]
        return {
            "rollout_s": wall_s,
            "new_tokens": int((batch["completion_mask"] * batch["tool_mask"]).sum()),
            "prompts": digest(prompts),
            "two_calls": sum(calls == CALLS for calls in watch.calls),
            "calls": sum(watch.calls),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--config", required=True, help="JSON: GRPOConfig fields, model_dtype")
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--completion", type=int, required=True, help="tokens of replies and tool results at most")
    options = parser.parse_args()
    pipe = Pipe()
    player = Player(options)
    pipe.reply({"ready": True, "torch": torch.__version__, "threads": torch.get_num_threads()})
    serve({"rollout": player.rollout}, pipe)


if __name__ == "__main__":
    main()
