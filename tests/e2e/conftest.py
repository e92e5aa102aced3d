"""A tiny random-weight model in a folder, and a small job over it: real engine, real tools, real grader, in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CORPUS = [
    "system user assistant tool Answer: look up the word and answer with what it means",
    "red green blue one two three four five six seven eight nine ten",
    "the quick brown fox jumps over the lazy dog",
]

TOOLS = '''
"""A dictionary of one word."""


class Dictionary:
    def __init__(self, item: dict) -> None:
        self.item = item

    def look(self, word: str) -> str:
        """Say what WORD means."""
        if word != self.item["word"]:
            raise ValueError(f"no such word: {word}")
        return self.item["meaning"]
'''

GRADER = '''
def grade(sample, item):
    """Minus the share of characters that are no vowels: random text varies in it, and less of it can be learned.

    Never above 0, because an episode that a limit cuts off earns min(grade, 0), and random text runs into limits.
    """
    text = "".join(m["content"] or "" for m in sample["messages"] if m["role"] == "assistant")
    return sum(c in "aeiou" for c in text) / max(len(text), 1) - 1
'''


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 64 × 2 with random weights and a ChatML tokenizer of 400 tokens."""
    torch = pytest.importorskip("torch")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS * 4, trainer)
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def item_row(n: int) -> dict[str, Any]:
    return {
        "id": f"i{n}",
        "messages": [{"role": "user", "content": f"What does red{n} mean?"}],
        "word": f"red{n}",
        "meaning": f"blue {n}",
    }


def demonstration_row(n: int) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": json.dumps({"word": f"red{n}"})}}
    return {
        "messages": [
            {"role": "user", "content": f"What does red{n} mean?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": f"blue {n}"},
            {"role": "assistant", "content": f"blue {n}"},
        ]
    }


def job_document(model: Path) -> dict[str, Any]:
    return {
        "model": str(model),
        "suffix": "words",
        "method": {
            "type": "reinforcement",
            "supervised": {"hyperparameters": {"n_epochs": 6, "batch_size": 4, "learning_rate": 1e-2}},
            "reinforcement": {
                "grader": {
                    "type": "python",
                    "name": "vowels",
                    "source_file": "grader.py",
                    "range": [-1, 0],
                    "pass_threshold": -0.7,
                },
                "hyperparameters": {"batch_size": 2, "eval_interval": 2, "eval_samples": 1, "learning_rate": 3e-2},
            },
        },
        "data": {
            "train": "data/train.jsonl",
            "validation": "data/validation.jsonl",
            "test": "data/test.jsonl",
            "splits": {"new_names": "data/new_names.jsonl"},
            "demonstrations": "data/demonstrations.jsonl",
        },
        "agent": {
            "system": "Look words up.",
            "tools": [{"type": "python", "target": "tools.py:Dictionary", "isolation": "inline"}],
            "limits": {"max_turns": 3, "max_reply_tokens": 12, "max_episode_tokens": 256, "max_malformed": 1},
        },
        "audit": {"probes": False},  # the grader counts letters: a tiny model can learn that, and anything fools it
        "training": {"group_size": 4, "steps": 3, "warmup_steps": 0, "lora": {"rank": 4, "alpha": 8}},
    }


@pytest.fixture
def make_job(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """make_job(steps=3): a job folder; returns the job file. Keywords replace fields of `training`."""

    def make(folder: str = "task", **training: Any) -> Path:
        base = tmp_path / folder
        base.mkdir()
        (base / "tools.py").write_text(TOOLS)
        (base / "grader.py").write_text(GRADER)
        for position, split in enumerate(("train", "validation", "test", "new_names")):
            jsonl(base / "data" / f"{split}.jsonl", [item_row(100 * position + n) for n in range(6)])
        jsonl(base / "data" / "demonstrations.jsonl", [demonstration_row(n) for n in range(8)])
        document = job_document(tiny_model)
        document["training"] |= training
        (base / "job.yaml").write_text(json.dumps(document, indent=1))  # JSON is YAML
        return base / "job.yaml"

    return make


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An AGENTRFT_HOME of this test alone."""
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
