"""Our generator as a worker: generates what it is asked to, and says when it had its first token."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from harness.pipe import Pipe, serve
from harness.prompts import grouped_prompts
from ours.rft import roll_out


async def generate(engine: TorchEngine, request: dict[str, Any]) -> dict[str, Any]:
    """All sequences of one request at once; counts the new tokens."""
    prompts = grouped_prompts(request, vocabulary=engine.model.vocabulary)
    members = max(request["sequences"] // len(prompts), 1)
    continuations_I_G = await roll_out(
        engine.generator, prompts, members=members, new=request["new"], seed=request["seed"]
    )
    return {"new_tokens": sum(len(c.tokens) for continuations_G in continuations_I_G for c in continuations_G)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    pipe = Pipe()
    engine = TorchEngine.load(options.model, lora=LoraSpec(rank=16, alpha=32), dtype=options.dtype)
    with asyncio.Runner() as runner:
        runner.run(generate(engine, {"sequences": 1, "prompt": 16, "new": 1, "share": 1, "seed": 0}))
        pipe.reply({"ready": True, "dtype": engine.dtype})
        serve({"generate": lambda request: runner.run(generate(engine, request))}, pipe)
        runner.run(engine.close())


if __name__ == "__main__":
    main()
