"""One base model that is only played: no learner, many adapters, constrained replies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from agentrft.engines import torch_weights
from agentrft.engines.torch_adapters import AdapterBank
from agentrft.engines.torch_constraint import Constraints, TextTokens
from agentrft.engines.torch_engine import GeneratorSettings, keep_freed_memory
from agentrft.engines.torch_generator import Serving, TorchGenerator
from agentrft.engines.torch_model import DtypeName, TorchModel, load_model
from agentrft.engines.torch_packed import few_shapes, is_packing_faster

_CPU_PASS_TOKENS = 256
"""Everybody's next token waits for the whole pass that computes somebody's prompt: half a second, on two cores."""


class ServingEngine:
    """A generator over one model, and the thread that all its computation runs on."""

    def __init__(
        self, model: TorchModel, generator: TorchGenerator, constraints: Constraints, executor: ThreadPoolExecutor
    ) -> None:
        self.model = model
        self.generator = generator
        self.constraints = constraints
        self._executor = executor

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        trained: Path | None = None,
        tokens: TextTokens,
        dtype: DtypeName = "auto",
        device: str = "auto",
        settings: GeneratorSettings | None = None,
    ) -> ServingEngine:
        """Load a model folder, with the full weights in `trained` over it where there are any.

        Raises UserError for unsupported architectures, and for
        weights that do not fit. Blocks; call it in a thread.
        """
        keep_freed_memory()
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

        def work() -> ServingEngine:
            model = load_model(folder, lora=None, dtype=dtype, device=device)
            model.network.requires_grad_(False)
            if trained is not None:
                torch_weights.load_weights(model, model.parameters(), trained)
            packed = is_packing_faster(model.dtype, model.device)
            if packed:
                model.pack()
            bank = AdapterBank(model, packed=packed)
            constraints = Constraints(tokens, model.vocabulary)
            own = settings or GeneratorSettings()
            if model.device.type == "cpu":
                own = replace(own, max_pass_tokens=min(own.max_pass_tokens, _CPU_PASS_TOKENS))
            serving = Serving(bank=bank, constraints=constraints)
            generator = TorchGenerator(model, executor, own, serving=serving, rows_of=few_shapes if packed else None)
            return cls(model, generator, constraints, executor)

        # Loading computes too, and OpenMP keeps a team of threads for each thread that does.
        try:
            return executor.submit(work).result()
        except BaseException:
            executor.shutdown(wait=False)
            raise

    async def close(self) -> None:
        """Stop generating and release the thread."""
        await self.generator.close()
        self._executor.shutdown(wait=True)
