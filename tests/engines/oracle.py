"""The naive engine: plain transformers, one padded batch, no sharing. Slow and obviously right; the tests' oracle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from agentrft.types import Row

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 512,
}
WINDOW = 8
"""Sliding window of the sliding families: shorter than the test rows, so that it matters."""


def tiny_config(family: str) -> Any:
    """A random-weight config of one family."""
    t = transformers
    makers = {
        "llama": lambda: t.LlamaConfig(**SIZES, tie_word_embeddings=True),
        "llama_untied": lambda: t.LlamaConfig(**SIZES, tie_word_embeddings=False),
        "qwen2": lambda: t.Qwen2Config(**SIZES),
        "qwen3": lambda: t.Qwen3Config(**SIZES, head_dim=16),
        "mistral": lambda: t.MistralConfig(**SIZES, sliding_window=WINDOW),
        "gemma": lambda: t.GemmaConfig(**SIZES, head_dim=16),
        "gemma3": lambda: t.Gemma3TextConfig(
            **SIZES,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        "phi3": lambda: t.Phi3Config(**SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2),
        "gpt_neox": lambda: t.GPTNeoXConfig(**{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}),
        "gemma2": lambda: t.Gemma2Config(**SIZES, head_dim=16),
        "granite_scaled": lambda: t.GraniteConfig(**SIZES, logits_scaling=2.0),
        "bamba": lambda: t.BambaConfig(**SIZES, mamba_d_state=8, mamba_n_heads=8, attn_layer_indices=[1]),
    }
    config = makers[family]()
    config.bos_token_id, config.eos_token_id = 1, 2
    return config


def save_tiny_model(family: str, folder: Path, seed: int = 0) -> Path:
    """A random-weight model folder; weights are large enough that attention is uneven and greedy text varies."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(tiny_config(family))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(2.0 if "embed" in name else 8.0)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def plain_model(folder: Path) -> Any:
    """The same weights in transformers' own eager code, float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def padded_log_probs(model: Any, rows: Sequence[Row]) -> list[Tensor]:
    """Log-probs of every row's tokens given what precedes them [T − 1], from one right-padded batch."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for r, row in enumerate(rows):
        ids[r, : len(row.ids)] = torch.tensor(list(row.ids))
        mask[r, : len(row.ids)] = 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    log_probs = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return [log_probs[r, : len(row.ids) - 1] for r, row in enumerate(rows)]


def weighted_loss(model: Any, rows: Sequence[Row]) -> Tensor:
    """−Σ credit · log-prob over trained tokens: what the supervised loss and on-policy pg_tv both are."""
    total = torch.zeros(())
    for row, log_probs in zip(rows, padded_log_probs(model, rows), strict=True):
        weights = torch.tensor([c if t else 0.0 for c, t in zip(row.credit, row.trained, strict=True)])
        total = total - (weights[1:] * log_probs).sum()
    return total


def greedy(model: Any, prompt: Sequence[int], n: int) -> tuple[int, ...]:
    """The n likeliest tokens after `prompt` (fewer after the end token), by transformers' own generate."""
    ids = torch.tensor([list(prompt)])
    with torch.no_grad():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, pad_token_id=0
        )
    return tuple(out[0, len(prompt) :].tolist())
