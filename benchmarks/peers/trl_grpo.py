"""TRL's GRPOTrainer as a worker: one optimiser step for each request, in one long-lived `train()` call.

Runs inside TRL's own environment. The trainer is TRL's, unmodified; a callback holds it before each step until the
parent asks, and answers after the optimiser step. What is timed from outside is therefore generation, reward, the
forward and backward passes and the optimiser step: all that `train()` does for a step.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from harness.pipe import Pipe, serve
from harness.prompts import hash_reward, text_prompts


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """TRL's reward-function signature around the shared hash."""
    return [hash_reward(ids) for ids in completion_ids]


class StepOnRequest(TrainerCallback):
    """Holds the trainer before each step until the parent asks for one; answers after it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._requests = pipe.requests()
        self._started = 0.0
        self.generate_s = 0.0
        self.new_tokens = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if next(self._requests, None) is None:
            raise SystemExit(0)
        self.generate_s, self.new_tokens = 0.0, 0
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step_s = time.perf_counter() - self._started
        self._pipe.reply(
            {
                "step_s": step_s,
                "rollout_s": self.generate_s,
                "train_s": step_s - self.generate_s,
                "new_tokens": self.new_tokens,
            }
        )


def timed_generation(trainer: GRPOTrainer, watch: StepOnRequest) -> None:
    """Add up the time and tokens of the trainer's own generation, to tell rollout from training."""
    generate = trainer._generate_single_turn

    def measured(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        completion_ids, log_probs = generate(*args, **kwargs)
        watch.generate_s += time.perf_counter() - started
        watch.new_tokens += sum(len(ids) for ids in completion_ids)
        return completion_ids, log_probs

    trainer._generate_single_turn = measured


def build(options: argparse.Namespace, watch: StepOnRequest) -> GRPOTrainer:
    """The trainer for one configuration of the sweep; everything not named here is TRL's default."""
    setting: dict[str, Any] = json.loads(options.config)
    dtype = setting.pop("model_dtype", "float32")
    attention = setting.pop("attn_implementation", "sdpa")
    rows = options.items * options.members
    batch = setting.pop("per_device_train_batch_size", rows)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    texts = text_prompts(options.items, options.prompt, tokenizer, vocabulary=len(tokenizer))
    config = GRPOConfig(
        output_dir=str(Path(options.scratch) / "trl"),
        use_cpu=True,
        max_steps=10**6,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=rows // batch,
        num_generations=options.members,
        max_completion_length=options.new,
        # Every reply has all its tokens on both sides; without this a peer that stops early would do less work.
        generation_kwargs={"min_new_tokens": options.new},
        model_init_kwargs={"dtype": dtype, "attn_implementation": attention},
        learning_rate=1e-5,
        lr_scheduler_type="constant",
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
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": texts}),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[watch],
    )
    timed_generation(trainer, watch)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--config", required=True, help="JSON: GRPOConfig fields, model_dtype, attn_implementation")
    parser.add_argument("--scratch", required=True)
    for name in ("items", "members", "prompt", "new"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    pipe = Pipe()
    watch = StepOnRequest(pipe)
    try:
        trainer = build(options, watch)
        pipe.reply({"ready": True, "torch": torch.__version__, "threads": torch.get_num_threads()})
        trainer.train()
    except Exception as error:
        serve_failure(pipe, error)


def serve_failure(pipe: Pipe, error: Exception) -> None:
    """Answer every further request with the failure, so that the sweep can record it."""
    import traceback

    text = "".join(traceback.format_exception(error))
    pipe.reply({"error": text})
    serve({}, pipe)


if __name__ == "__main__":
    main()
