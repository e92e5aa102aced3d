"""A process that merges an adapter into its base model: `python -m agentrft.engines.torch_merge BASE TRAINED TARGET`.

Merged in float32 and saved in the base's own type, as safetensors with the tokenizer beside them; weights that are no
adapter are copied. Source: PEFT's `merge_and_unload` (W + B·A·alpha/r).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def merge(base: Path, trained: Path, target: Path) -> None:
    """Write the model into `target`, a folder that exists."""
    if (trained / "adapter_config.json").is_file():
        from peft import PeftModel

        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        merged = PeftModel.from_pretrained(model, str(trained)).merge_and_unload()
        merged.to(_dtype(base)).save_pretrained(target, safe_serialization=True)
    else:
        for name in ("model.safetensors", "config.json"):
            shutil.copy2(trained / name, target)
    for source in (base / name for name in _TOKENIZER_FILES):
        if source.is_file():
            shutil.copy2(source, target)


def _dtype(base: Path) -> torch.dtype:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    return getattr(torch, name)


if __name__ == "__main__":
    merge(*map(Path, sys.argv[1:4]))
