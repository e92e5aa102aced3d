"""The layer rules that import-linter cannot say: heavy packages and `losses` are imported in named places only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "agentrft"

HEAVY = {
    "torch": ("losses/", "engines/torch_"),
    "safetensors": ("engines/",),
    "transformers": ("engines/",),
    "peft": ("engines/",),
    "gguf": ("engines/",),
}
"""Package → the parts of `src/agentrft` that may import it. Everything else runs on the base install."""

TORCH_FREE = ("losses/spec.py", "losses/scale.py", "losses/normaliser.py", "losses/kl.py", "losses/margins.py")
"""Presets and their options are validated without torch."""

PIECES = ("data", "chat", "tools", "graders", "credit", "detectors", "store", "report")
"""The pieces that may not import `losses`; the torch learner is the one that does."""


def imports(text: str) -> Iterator[str]:
    """Dotted names of everything that `text` imports, inside functions too; relative imports are banned by ruff."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def misplaced(name: str, text: str) -> list[str]:
    """What the file `name` (relative to the package) imports and may not."""
    found = []
    for module in imports(text):
        package = module.split(".")[0]
        if package in HEAVY and not name.startswith(HEAVY[package]):
            found.append(package)
        if package == "torch" and name in TORCH_FREE:
            found.append(package)
        if module.startswith("agentrft.losses") and name.startswith(tuple(f"{piece}/" for piece in PIECES)):
            found.append("agentrft.losses")
        if module.startswith("agentrft.losses") and name.startswith("engines/") and "torch_" not in name:
            found.append("agentrft.losses")
    return sorted(set(found))


def test_heavy_packages_and_losses_are_imported_in_their_places_only() -> None:
    problems = {
        name: found
        for path in sorted(SRC.rglob("*.py"))
        if (found := misplaced(name := path.relative_to(SRC).as_posix(), path.read_text()))
    }
    assert not problems


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("train/rft.py", "import torch.nn as nn", ["torch"]),
        ("store/schema.py", "def f():\n    from transformers import AutoTokenizer", ["transformers"]),
        ("losses/spec.py", "import torch", ["torch"]),
        ("credit/group_mean.py", "from agentrft.losses import spec", ["agentrft.losses"]),
        ("engines/models.py", "import torch", ["torch"]),
        ("engines/torch_learner.py", "import torch\nfrom agentrft.losses import LOSSES", []),
    ],
)
def test_the_rules_bite(name: str, text: str, found: list[str]) -> None:
    assert misplaced(name, text) == found
