"""vLLM's CPU build as a worker, inside its own environment.

No log-probs are asked for, although ours gives them: vLLM gets the smaller job.
"""

from __future__ import annotations

import argparse
from typing import Any

from harness.pipe import Pipe, serve
from harness.prompts import grouped_prompts, repeated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), required=True)
    parser.add_argument("--eager", action="store_true", help="no torch.compile: quicker start")
    parser.add_argument("--context", type=int, default=2048)
    options = parser.parse_args()
    pipe = Pipe()

    from vllm import LLM, SamplingParams

    llm = LLM(
        model=options.model,
        dtype=options.dtype,
        enforce_eager=options.eager,
        max_model_len=options.context,
    )
    vocabulary = llm.llm_engine.model_config.get_vocab_size()

    def generate(request: dict[str, Any]) -> dict[str, Any]:
        prompts = repeated(grouped_prompts(request, vocabulary=vocabulary), request["sequences"])
        sampling = SamplingParams(
            temperature=1.0, max_tokens=request["new"], ignore_eos=True, detokenize=False, seed=None
        )
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        return {"new_tokens": sum(len(output.outputs[0].token_ids) for output in outputs)}

    generate({"sequences": 1, "prompt": 16, "new": 1, "share": 1, "seed": 0})
    pipe.reply({"ready": True, "dtype": options.dtype})
    serve({"generate": generate}, pipe)


if __name__ == "__main__":
    main()
