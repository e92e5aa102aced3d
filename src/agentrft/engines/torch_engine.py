"""One model in one process: a generator and a learner over the same weights, on one thread of their own."""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from agentrft.engines import torch_exact
from agentrft.engines.torch_generator import GeneratorSettings, TorchGenerator
from agentrft.engines.torch_learner import LearnerSettings, TorchLearner
from agentrft.engines.torch_model import DtypeName, LoraSpec, TorchModel, load_model
from agentrft.engines.torch_packed import few_shapes, is_packing_faster
from agentrft.engines.torch_pass import CachedAttention
from agentrft.errors import UserError

__all__ = ["GeneratorSettings", "LearnerSettings", "LoraSpec", "TorchEngine"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


class TorchEngine:
    """Owns a model and the thread that all its computation runs on (`executor`).

    Rollouts and updates take turns on that thread, so a generator never sees half-updated weights.
    """

    def __init__(
        self, model: TorchModel, generator: TorchGenerator, learner: TorchLearner, executor: ThreadPoolExecutor
    ):
        self.model = model
        self.generator = generator
        self.learner = learner
        self.executor = executor

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        lora: LoraSpec | None = None,
        dtype: DtypeName = "auto",
        device: str = "auto",
        exact: bool = False,
        seed: int = 0,
        learner: LearnerSettings | None = None,
        generator: GeneratorSettings | None = None,
    ) -> TorchEngine:
        """Load a model folder; `lora` None trains all weights.

        Raises UserError for unsupported architectures, and for `exact` where it cannot be honoured.
        """
        keep_freed_memory()
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

        def work() -> TorchEngine:
            where = "cpu" if exact and device == "auto" else device
            model = load_model(folder, lora=lora, dtype=dtype, device=where, seed=seed)
            rows_of = None
            if exact:
                _prepare_exact(model)
                rows_of = torch_exact.whole_blocks
            elif is_packing_faster(model.dtype, model.device):
                model.pack()
                rows_of = few_shapes
            generates = TorchGenerator(
                model,
                executor,
                generator or GeneratorSettings(),
                attention=torch_exact.ExactAttention if exact else CachedAttention,
                rows_of=rows_of,
            )
            learns = TorchLearner(model, executor, learner or LearnerSettings(), on_update=generates.forget)
            return cls(model, generates, learns, executor)

        # Loading computes too. OpenMP keeps a team of threads for each thread that computes, and with more threads than
        # cores its teams sleep between any two operations instead of spinning: a step then takes 1.5 times as long.
        try:
            return executor.submit(work).result()
        except BaseException:
            executor.shutdown(wait=False)
            raise

    @property
    def device(self) -> str:
        return str(self.model.device)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    async def close(self) -> None:
        """Stop generating and release the thread."""
        await self.generator.close()
        self.executor.shutdown(wait=True)


def _prepare_exact(model: TorchModel) -> None:
    if model.device.type != "cpu":
        raise UserError(
            f"exact mode is for CPUs; got device {model.device}; set device to cpu or exact to false",
            param="training.exact",
            code="exact_unsupported",
        )
    torch.use_deterministic_algorithms(True)
    seen: set[torch.Size] = set()
    for weight in [model.head, *(m.weight for m in model.network.modules() if hasattr(m, "weight"))]:
        if isinstance(weight, torch.Tensor) and weight.dim() == 2 and weight.shape not in seen:
            seen.add(weight.shape)
            torch_exact.check_rows(weight.detach())


def keep_freed_memory() -> None:
    """Let the C allocator keep large blocks instead of returning them to the kernel after each use.

    Activations are tens of megabytes, allocated and freed hundreds of times a step; touching fresh pages costs more
    than the arithmetic on them. No effect outside Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most glibc accepts
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_ARENA_MAX, 1)  # the arenas of other threads give large blocks back whatever the thresholds say
