"""The base model drilled until it plays the look-up task: a minute of the product's own supervised training, once.

    python -m ours.drill --model FOLDER --template FILE --folder FOLDER

It leaves a plain transformers folder (float32 safetensors, the adapter merged), which everyone loads. The chat template
is one that the peer knows how to read calls of: SmolLM2's own has no tools, and its control tokens are those of Qwen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

from agentrft import build
from agentrft.jobs.load import parse_job
from agentrft.jobs.models import find_weights
from agentrft.jobs.service import create_job
from agentrft.store import open_store
from agentrft.train import sft
from agentrft.train.log import RunLog
from harness.lookup import ANSWER, TOOL, found, messages_for, pairs
from harness.study import say

DEMONSTRATIONS = 256
SEED = 1_000_000
"""Of the demonstrations' pairs; measured episodes have small seeds."""
TRAINING: dict[str, Any] = {"n_epochs": 1, "batch_size": 8, "learning_rate": 1e-3}


def demonstration(pair: tuple[str, str]) -> dict[str, Any]:
    """An episode as it should be, as a row of OpenAI's supervised format."""
    messages: list[dict[str, Any]] = [*messages_for(pair)]
    for turn, name in enumerate(pair):
        call = {"name": TOOL["function"]["name"], "arguments": json.dumps({"name": name})}
        made = {"id": f"call_{turn}_0", "type": "function", "function": call}
        messages.append({"role": "assistant", "tool_calls": [made]})
        messages.append({"role": "tool", "tool_call_id": made["id"], "content": found(name)})
    messages.append({"role": "assistant", "content": ANSWER})
    return {"messages": messages, "tools": [TOOL]}


def prepare(base: Path, template: Path, folder: Path) -> None:
    """`folder` with the base model under another chat template, and the demonstrations beside it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    tokenizer.save_pretrained(folder / "base")
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copyfile(base / name, folder / "base" / name)
    rows = [json.dumps(demonstration(pair)) + "\n" for pair in pairs(DEMONSTRATIONS, SEED)]
    (folder / "demonstrations.jsonl").write_text("".join(rows), encoding="utf-8")


async def train(folder: Path) -> Path:
    """The checkpoint folder after supervised training on the demonstrations."""
    document = {
        "model": "base",
        "method": {"type": "supervised", "supervised": {"hyperparameters": TRAINING}},
        "data": {"demonstrations": "demonstrations.jsonl"},
    }
    spec = parse_job(document)
    store = open_store()
    try:
        job = create_job(store, spec, folder)
        weights = find_weights(job.model, base_dir=folder)
        async with build.open_job(spec, folder, weights, training=True) as live:
            plan = build.sft_plan(live, run=job.id, folder=job.folder)
            result = await sft.train(plan, live.engine.learner, RunLog(store, job.id, watch=say))
    finally:
        store.close()
    return result.last.path


def merge(base: Path, adapter: Path, target: Path) -> None:
    """The base model with the adapter added to its weights, and its tokenizer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    PeftModel.from_pretrained(network, str(adapter)).merge_and_unload().save_pretrained(target)
    AutoTokenizer.from_pretrained(base).save_pretrained(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="is made, or made anew")
    options = parser.parse_args()
    draft = options.folder.with_name(f".tmp-{options.folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    os.environ["AGENTRFT_HOME"] = str(draft / "home")
    prepare(options.model, options.template, draft)
    merge(draft / "base", asyncio.run(train(draft)), draft / "merged")
    shutil.rmtree(options.folder, ignore_errors=True)
    (draft / "merged").rename(options.folder)
    shutil.rmtree(draft)


if __name__ == "__main__":
    main()
