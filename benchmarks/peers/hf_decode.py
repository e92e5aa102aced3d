"""transformers as a worker: `generate`, or its continuous batching (`generate_batch`), in one dtype.

`generate` gets one padded batch; the prompts of a request are equally long, so nothing is wasted on padding.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from harness.pipe import Pipe, serve
from harness.prompts import grouped_prompts, repeated


def settings(new: int) -> GenerationConfig:
    """Exactly `new` tokens at temperature 1 from the whole distribution."""
    return GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=new, eos_token_id=None, pad_token_id=0
    )


def cache_for(request: dict[str, Any]) -> ContinuousBatchingConfig:
    """A cache that just holds the request; left to itself it takes more than half of the free memory."""
    page = 32
    a_sequence = -(-(request["prompt"] + request["new"]) // page) + 1
    return ContinuousBatchingConfig(page_size=page, num_blocks=request["sequences"] * a_sequence, max_batch_tokens=1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--continuous", action="store_true")
    options = parser.parse_args()
    pipe = Pipe()
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)).eval()
    model.generation_config.eos_token_id = None

    def generate(request: dict[str, Any]) -> dict[str, Any]:
        torch.manual_seed(request["seed"])
        prompts = grouped_prompts(request, vocabulary=model.config.vocab_size)
        inputs = repeated(prompts, request["sequences"])
        with torch.no_grad():
            if options.continuous:
                outputs = model.generate_batch(
                    inputs,
                    generation_config=settings(request["new"]),
                    continuous_batching_config=cache_for(request),
                    progress_bar=False,
                )
                return {"new_tokens": sum(len(output.generated_tokens) for output in outputs.values())}
            ids = torch.tensor(inputs)
            out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings(request["new"]))
        return {"new_tokens": (out.shape[1] - ids.shape[1]) * out.shape[0]}

    generate({"sequences": 1, "prompt": 16, "new": 1, "share": 1, "seed": 0})
    pipe.reply({"ready": True, "dtype": options.dtype})
    serve({"generate": generate}, pipe)


if __name__ == "__main__":
    main()
