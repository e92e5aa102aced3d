"""Tiny models of every family, and engines over them that are closed when their test ends."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

WITHOUT_TORCH = ("test_models.py", "test_prefix_tree.py")

if importlib.util.find_spec("torch") is None:
    # Left out rather than skipped: the base install has no engine to test, and in CI a skip counts as a failure.
    collect_ignore = [p.name for p in Path(__file__).parent.glob("test_*.py") if p.name not in WITHOUT_TORCH]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that a second thread costs more than it brings."""
    torch = sys.modules.get("torch")
    if torch is None:  # the module under test does without
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny("llama"): the folder of a random-weight model of that family, made once."""
    from oracle import save_tiny_model

    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = save_tiny_model(family, tmp_path_factory.mktemp("tiny") / family)
        return made[family]

    return make


@pytest.fixture(scope="session")
def plain(tiny: Callable[[str], Path]) -> Any:
    """The tiny Llama in plain transformers."""
    from oracle import plain_model

    return plain_model(tiny("llama"))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real model's folder, unpacked into the session's AGENTRFT_HOME from the package that carries it."""
    pytest.importorskip("torch")
    from agentrft.engines.models import SMOLLM2, resolve

    return resolve(SMOLLM2)


@pytest.fixture
async def load(tiny: Callable[[str], Path]) -> AsyncIterator[Callable[..., Any]]:
    """load("llama", lora=LoraSpec(…), …): a TorchEngine on the CPU, closed after the test."""
    from agentrft.engines.torch_engine import GeneratorSettings, LearnerSettings, TorchEngine

    engines: list[TorchEngine] = []

    def start(model: str | Path, **options: Any) -> TorchEngine:
        folder = tiny(model) if isinstance(model, str) else model
        for name, settings in (("learner", LearnerSettings), ("generator", GeneratorSettings)):
            own = {f.name: options.pop(f.name) for f in fields(settings) if f.name in options}
            options[name] = settings(**own)
        engines.append(TorchEngine.load(folder, **{"dtype": "float32", "device": "cpu", **options}))
        return engines[-1]

    yield start
    for engine in engines:
        await engine.close()


@pytest.fixture
async def serving(tiny: Callable[[str], Path]) -> AsyncIterator[Callable[..., Any]]:
    """serving("llama", trained=…, …settings): a ServingEngine on the CPU, closed after the test."""
    from chat_models import tiny_tokenizer

    from agentrft.engines.torch_constraint import TextTokens
    from agentrft.engines.torch_engine import GeneratorSettings
    from agentrft.engines.torch_serving import ServingEngine

    tokens = TextTokens(backend=tiny_tokenizer("line"), encode=lambda text: [], control_tokens=())
    engines: list[ServingEngine] = []

    def start(family: str = "llama", *, trained: Path | None = None, **settings: Any) -> ServingEngine:
        options: Any = {"dtype": "float32", "device": "cpu", "settings": GeneratorSettings(**settings)}
        engines.append(ServingEngine.load(tiny(family), trained=trained, tokens=tokens, **options))
        return engines[-1]

    yield start
    for engine in engines:
        await engine.close()


@pytest.fixture
def adapters(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[[str], list[Path]]:
    """adapters("llama"): folders of three adapters of different kinds, written by PEFT."""
    from chat_models import ADAPTERS, save_lora

    def make(family: str) -> list[Path]:
        kinds = enumerate(ADAPTERS)
        return [save_lora(tiny(family), tmp_path / f"{family} {k}", seed=k, **kind) for k, kind in kinds]

    return make
