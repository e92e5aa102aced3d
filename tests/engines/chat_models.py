"""Tiny random models that can chat: byte-level BPE tokenizers with the control tokens of each family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

_CORPUS = [
    "assistant user system tool Answer: grep cat ls the port of billing in staging is 8080",
    '{"name": "grep", "arguments": {"text": "port", "path": "/apps/billing"}} {"name": "cat", "parameters": {}}',
    "<|im_start|>user\n<tool_call> </tool_call> [TOOL_CALLS] <|eot_id|> <s> </s>",
]
_QWEN = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
FAMILIES = {
    "line": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "hermes": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_QWEN],
    "llama3": [
        *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        *("<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
    ],
    "mistral": [
        *("<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
        *("[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    ],
}
"""Format → control tokens; Qwen adds its own unflagged, which is the trap."""


def tiny_tokenizer(family: str) -> Tokenizer:
    """About 400 tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(_CORPUS, trainer)
    added = [AddedToken(token, special=token not in _QWEN, normalized=False) for token in FAMILIES[family]]
    backend.add_tokens(added)
    return backend


def save_chat_model(family: str, folder: Path, *, seed: int = 0, context: int = 2048) -> Path:
    """A model folder with random weights and a tokenizer; its replies are noise, and as such cover everything."""
    import torch
    import transformers

    backend = tiny_tokenizer(family)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=backend.get_vocab_size() + 7,  # models are often padded past their tokenizer
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6.0)
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    return folder


LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: list[dict[str, Any]] = [
    {"r": 8, "lora_alpha": 16, "target_modules": LINEAR},
    {"r": 1, "lora_alpha": 4, "target_modules": ["k_proj", "up_proj"]},
    {
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "rank_pattern": {"q_proj": 2, "model.layers.1.self_attn.v_proj": 3},
        "alpha_pattern": {"layers.0.mlp.down_proj": 20},
    },
]
"""All layers; two of them with rank 1; patterns, rank-stabilised."""


def save_lora(base: Path, folder: Path, seed: int, **config: Any) -> Path:
    """An adapter with random A and B, written by PEFT itself."""
    import peft
    import torch
    import transformers

    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **config))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.3)
    adapted.save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, *, seed: int = 0) -> Path:
    """A small one on the queries."""
    return save_lora(base, folder, seed, r=4, lora_alpha=12, target_modules=["q_proj"])
