"""A job folder whose every part is right, so that each test can break one, and jobs of create bodies; no model runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.create_body import ApiJob, BodyRules, job_from_body

sys.path.insert(0, str(Path(__file__).parent))  # for create_bodies.py

TOOLS = 'def look(word: str) -> str:\n    """Say what WORD means."""\n    return word\n'
GRADER = "def grade(sample, item):\n    return float(sample['output_text'] == item['meaning'])\n"
DOCUMENT: dict[str, Any] = {
    "method": {
        "type": "reinforcement",
        "reinforcement": {"grader": {"type": "python", "name": "exact", "source_file": "grader.py"}},
    },
    "data": {
        "train": "train.jsonl",
        "validation": "validation.jsonl",
        "test": "test.jsonl",
        "demonstrations": "demonstrations.jsonl",
    },
    "agent": {
        "system": "Look words up.",
        "tools": [{"type": "python", "target": "tools.py:look"}],
        "limits": {"max_reply_tokens": 16, "max_episode_tokens": 256},
    },
}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ChatML tokenizer and a config with 512 tokens of context: all that static checks look at."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("model")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        ["what does the word mean"],
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False),
    )
    backend.add_special_tokens([AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>")])
    backend.save(str(folder / "tokenizer.json"))
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 512}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def make_job(tmp_path: Path, model_folder: Path) -> Callable[..., Path]:
    """make_job({"agent.limits.max_turns": 3}, **files): a job folder; dotted keys replace fields, None removes one."""

    def make(changes: dict[str, Any] | None = None, **files: str) -> Path:
        document = json.loads(json.dumps({"model": str(model_folder), **DOCUMENT}))
        for dotted, value in (changes or {}).items():
            *parents, last = dotted.split(".")
            place = document
            for parent in parents:
                place = place.setdefault(parent, {})
            if value is None:
                del place[last]
            else:
                place[last] = value
        rows = {split: [item(split, n) for n in range(20)] for split in ("train", "validation", "test")}
        written = {f"{split}.jsonl": "".join(json.dumps(row) + "\n" for row in rows[split]) for split in rows}
        written["demonstrations.jsonl"] = "".join(json.dumps(demonstration(n)) + "\n" for n in range(4))
        written |= {"tools.py": TOOLS, "grader.py": GRADER, "job.yaml": json.dumps(document, indent=1)}
        written |= {name.replace("__", "."): text for name, text in files.items()}
        for name, text in written.items():
            (tmp_path / name).write_text(text)
        return tmp_path / "job.yaml"

    return make


@pytest.fixture
def job_of(tmp_path: Path) -> Callable[..., ApiJob]:
    """job_of(body, **rules): the job of a body whose files have 12 rows; `file-few` has 7."""

    def files(file_id: str, param: str) -> str:
        rows = {"file-few": 7, "file-none": 0}.get(file_id, 12)
        if file_id == "file-unknown":
            raise UserError(f"no file {file_id}", param=param, code="not_found")
        (tmp_path / f"{file_id}.jsonl").write_text('{"messages": []}\n' * rows)
        return f"{file_id}.jsonl"

    def build(body: dict[str, Any], **rules: Any) -> ApiJob:
        return job_from_body(
            json.loads(json.dumps(body)),
            base_dir=tmp_path,
            files=files,
            resolve_model=lambda name: {"o4-mini": "smollm2-135m-instruct"}.get(name, name),
            rules=BodyRules(**rules),
            draw_seed=lambda: 77,
        )

    return build


def item(split: str, n: int) -> dict[str, Any]:
    word = f"{split}{n}"
    return {"messages": [{"role": "user", "content": f"What does {word} mean?"}], "word": word, "meaning": f"m{n}"}


def demonstration(n: int) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"word": "a"}'}}
    return {
        "messages": [
            {"role": "user", "content": f"What does a{n} mean?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "m"},
            {"role": "assistant", "content": "m"},
        ]
    }
