"""A tiny random-weight model in a folder, and a small job over it: real engine, real tools, real grader, in seconds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


class Server:
    """`agentrft serve` in a process of its own."""

    def __init__(self, home: Path, config: dict[str, Any]) -> None:
        home.mkdir(parents=True, exist_ok=True)
        (home / "server.yaml").write_text(json.dumps(config))  # JSON is YAML
        self.log = (home / "server.log").open("w+")
        command = "from agentrft.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", "--port", "0", "--config", str(home / "server.yaml")],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "AGENTRFT_HOME": str(home), "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"{line}\n{Path(self.log.name).read_text()}"
        self.url = found[0]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout
        self.process.stdout.close()
        self.log.close()


class Words:
    """Two tools and a grader behind one web server; `asked` is everything they were asked: path, headers, body."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        words = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                words.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}, body))
                status, answer = words.answer(self.path, body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """`asked` is what the tests look at."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.http.server_port}"
        self.url = f"http://{self.address}"

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/grade":
            said = "".join(m["content"] or "" for m in body["sample"]["messages"] if m["role"] == "assistant")
            # Minus the share of characters that are no vowels: see `GRADER` in conftest.
            return 200, {"score": sum(c in "aeiou" for c in said) / max(len(said), 1) - 1}
        word = json.loads(body["arguments"])["word"]
        told = body["item"]["meaning"] if body["name"] == "look" else "-".join(word)
        return 200, {"type": "function_call_output", "call_id": body["call_id"], "id": body["id"], "output": told}

    def requests(self, *paths: str) -> list[tuple[str, dict[str, str], Any]]:
        return [asked for asked in self.asked if asked[0] in paths]


@pytest.fixture(scope="session")
def words() -> Iterator[Words]:
    words = Words()
    thread = threading.Thread(target=words.http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield words
    words.http.shutdown()
    thread.join()
    words.http.server_close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, words: Words) -> Iterator[Server]:
    config = {
        "aliases": {"o4-mini": str(tiny_model), "tiny": str(tiny_model)},
        "network": {"allow": [words.address]},
        "concurrency": 1,
    }
    server = Server(tmp_path_factory.mktemp("served") / "home", config)
    yield server
    server.stop()
