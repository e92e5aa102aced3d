"""Messages ↔ tokens, append-only, and the tool-call format of each model family.

`pick_format` is the door: it takes whatever tokenizer the engine loaded and gives back a checked `ChatFormat`.
"""

from __future__ import annotations

from typing import Any

from agentrft.chat.check import build_checked, check_format
from agentrft.chat.hermes import HermesFormat
from agentrft.chat.line import LineFormat
from agentrft.chat.llama3 import Llama3Format
from agentrft.chat.mistral import MistralFormat
from agentrft.chat.tokens import FastTokenizer, Tokenizer
from agentrft.errors import UserError

FORMATS = {"line": LineFormat, "hermes": HermesFormat, "llama3": Llama3Format, "mistral": MistralFormat}

AnyFormat = LineFormat | HermesFormat | Llama3Format | MistralFormat


def pick_format(tokenizer: Any, requested: str = "auto") -> AnyFormat:
    """The chat format for a tokenizer (transformers fast, `tokenizers.Tokenizer`, or a `Tokenizer` of ours), checked.

    `auto` goes by the control tokens and the shipped chat template. `.note` of the result says whether the model's own
    wording is used, and why not otherwise. Raises UserError (`agent.format` or `model`) with the reason.
    """
    tokens: Tokenizer = tokenizer if isinstance(tokenizer, FastTokenizer) else FastTokenizer(tokenizer)
    if requested != "auto" and requested not in FORMATS:
        raise UserError(
            f"unknown chat format {requested!r}; expected auto, {', '.join(FORMATS)}; next step: set `agent.format`",
            param="agent.format",
            code="format_unknown",
        )
    name = _detect(tokens) if requested == "auto" else requested
    if name == "line":
        line = LineFormat(tokens)
        check_format(line, tokens)
        return line
    return build_checked(FORMATS[name], tokens)


def _detect(tokens: Tokenizer) -> str:
    if tokens.has("<|im_start|>") and tokens.has("<|im_end|>"):
        knows_calls = tokens.has("<tool_call>") or "<tool_call>" in tokens.template
        return "hermes" if knows_calls else "line"
    if tokens.has("<|start_header_id|>") and tokens.has("<|eot_id|>"):
        return "llama3"
    if tokens.has("[INST]") and tokens.has("[TOOL_CALLS]"):
        return "mistral"
    raise UserError(
        "cannot tell this model's tool-call format: its tokenizer has none of <|im_start|> (line, hermes), "
        "<|start_header_id|> (llama3), [TOOL_CALLS] (mistral); next step: use an instruction-tuned model of one of "
        "these families",
        param="agent.format",
        code="format_unsupported",
    )


__all__ = [
    "FORMATS",
    "AnyFormat",
    "FastTokenizer",
    "HermesFormat",
    "LineFormat",
    "Llama3Format",
    "MistralFormat",
    "Tokenizer",
    "pick_format",
]
