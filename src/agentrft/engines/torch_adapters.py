"""Many LoRA adapters over one base model, unmerged: rows of one pass may belong to different adapters.

A linear layer computes its base product for all rows at once and then, for each run of rows that belongs to an adapter,
adds (x A) B. Layers that read the same input are one product. An adapter never changes once it is loaded; requests hold
theirs to their end, whatever is registered under its name meanwhile.

Read is what PEFT writes for LoRA on linear layers: any rank, alpha, rank and alpha patterns, rank-stabilised scaling,
any subset of the decoder's layers. Refused by name: everything that is not a plain low-rank update.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from agentrft.engines.torch_model import TorchModel
from agentrft.engines.torch_packed import PackedLinear
from agentrft.engines.torch_weights import ADAPTER, ADAPTER_CONFIG, PEFT_PREFIX, read_tensors
from agentrft.errors import UserError

_TENSOR = re.compile(r"(.+)\.lora_([AB])\.weight")
_MEANS_MORE = (
    "use_dora",
    "use_qalora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "layer_replication",
    "megatron_config",
    "target_parameters",
)
"""Fields of PEFT's configuration under which the result is not W + scale · B A on linear layers."""
_GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Adapter:
    """One adapter, ready to be applied."""

    name: str
    version: int
    """Counts the adapters that this model loaded."""
    parts: Sequence[tuple[Tensor, Tensor] | None]
    """By `Projection.index`: A [in, R] and B [R, out], scaled, of all its layers together; None where it has none."""


@dataclass(frozen=True, slots=True)
class Span:
    """Rows [start, end) of a pass belong to an adapter."""

    start: int
    end: int
    adapter: Adapter


class Projection(nn.Module):
    """One or several linear layers that read the same input, as one product, plus what adapters add."""

    def __init__(self, layers: Sequence[nn.Linear], index: int, spans: list[Span]) -> None:
        super().__init__()
        self.index = index
        self.sizes = [layer.out_features for layer in layers]
        self._spans = spans
        self._packed: PackedLinear | None = None
        if len(layers) == 1:
            weight, bias = layers[0].weight.detach(), layers[0].bias
        else:
            weight, bias = torch.cat([layer.weight.detach() for layer in layers]), None
            # They keep their names and shapes, as rows of the one matrix.
            for layer, rows in zip(layers, weight.split(self.sizes), strict=True):
                layer.weight = nn.Parameter(rows, requires_grad=False)
            if layers[0].bias is not None:
                bias = torch.cat([layer.bias.detach() for layer in layers])
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def pack(self) -> None:
        """Compute from a packed copy from now on."""
        self._packed = PackedLinear(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out of all layers]."""
        y = linear(x, self.weight, self.bias) if self._packed is None else self._packed(x, self.bias)
        if self._spans:
            y_2d, x_2d = y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1])
            for span in self._spans:
                part = span.adapter.parts[self.index]
                if part is not None:
                    y_2d[span.start : span.end].addmm_(x_2d[span.start : span.end] @ part[0], part[1])
        return y


class AdapterBank:
    """Turns a model's linear layers into projections, and loads adapters for them."""

    def __init__(self, model: TorchModel, *, packed: bool) -> None:
        """`model` is one without an adapter of its own; it is changed in place and no longer trains."""
        self._model = model
        self._spans: list[Span] = []
        self._places: dict[str, tuple[int, int, int, int]] = {}
        """Layer path → (projection, position among its layers, in, out)."""
        self._projections: list[Projection] = []
        self._loaded = 0
        head = model.network.get_output_embeddings()
        for path, parent in list(model.network.named_modules()):
            self._convert(path, parent, head)
        if packed:
            for projection in self._projections:
                projection.pack()

    def _convert(self, path: str, parent: nn.Module, head: nn.Module) -> None:
        grouped: list[str] = []
        # Families whose forward we did not fuse call each layer by itself, and ask nobody for `inputs`.
        for names in _GROUPS if "inputs" in parent.__dict__ and "forward" in parent.__dict__ else ():
            layers = [getattr(parent, name, None) for name in names]
            linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
            if len(linears) == len(names) and len({layer.bias is None for layer in linears}) == 1:
                parent.__dict__["inputs"] = self._add([f"{path}.{name}" for name in names], linears)
                grouped += names
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child is not head and name not in grouped:
                setattr(parent, name, self._add([f"{path}.{name}"], [child]))

    def _add(self, paths: Sequence[str], layers: Sequence[nn.Linear]) -> Projection:
        index = len(self._projections)
        for position, (path, layer) in enumerate(zip(paths, layers, strict=True)):
            self._places[path] = (index, position, layer.in_features, layer.out_features)
        self._projections.append(Projection(layers, index, self._spans))
        return self._projections[-1]

    def use(self, spans: Sequence[Span]) -> None:
        """Say whose rows the next pass has; rows in no span are the base model's."""
        self._spans[:] = spans

    def load(self, name: str, folder: Path) -> Adapter:
        """Read a PEFT folder; raises UserError when it is no LoRA adapter, or one of another model."""
        config = _config(folder)
        tensors, _ = read_tensors(folder / ADAPTER)
        pairs: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            match = _TENSOR.fullmatch(key.removeprefix(PEFT_PREFIX))
            if match is None:
                raise _misfit(folder, f"the tensor {key!r}, which is no lora_A or lora_B of a linear layer")
            pairs.setdefault(match[1], {})[match[2]] = value.float()
        by_projection: dict[int, dict[int, tuple[Tensor, Tensor]]] = {}
        for path, pair in pairs.items():
            index, position, a, b = self._fitting(folder, path, pair)
            by_projection.setdefault(index, {})[position] = a.t(), b.t() * _scale(config, path, a.shape[0])
        self._loaded += 1
        parts = [self._joined(index, by_projection.get(index)) for index in range(len(self._projections))]
        return Adapter(name=name, version=self._loaded, parts=parts)

    def _fitting(self, folder: Path, path: str, pair: dict[str, Tensor]) -> tuple[int, int, Tensor, Tensor]:
        if path not in self._places:
            raise _misfit(folder, f"the layer {path!r}, which this model has not, or not as a linear layer of its own")
        index, position, inputs, outputs = self._places[path]
        a, b = pair.get("A"), pair.get("B")
        if a is None or b is None or a.dim() != 2 or b.shape != (outputs, a.shape[0]) or a.shape[1] != inputs:
            got = {key: tuple(value.shape) for key, value in pair.items()}
            raise _misfit(folder, f"{path} with {got}, expected A [r, {inputs}] and B [{outputs}, r]")
        if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise _misfit(folder, f"{path} with values that are no numbers: its training has diverged")
        return index, position, a, b

    def _joined(self, index: int, layers: dict[int, tuple[Tensor, Tensor]] | None) -> tuple[Tensor, Tensor] | None:
        """A side by side and B as a block diagonal over the projection's layers, in the model's dtype."""
        if layers is None:
            return None
        sizes = self._projections[index].sizes
        ranks = [layers[position][0].shape[1] if position in layers else 0 for position in range(len(sizes))]
        b = torch.zeros(sum(ranks), sum(sizes))
        for position, (_, own) in layers.items():
            row, column = sum(ranks[:position]), sum(sizes[:position])
            b[row : row + ranks[position], column : column + sizes[position]] = own
        a = torch.cat([layers[position][0] for position in sorted(layers)], dim=1)
        like = {"device": self._model.device, "dtype": self._model.dtype}
        return a.contiguous().to(**like), b.to(**like)


def _config(folder: Path) -> dict[str, Any]:
    for name in (ADAPTER_CONFIG, ADAPTER):
        if not (folder / name).is_file():
            raise _misfit(folder, f"no {name}")
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _misfit(folder, f"an {ADAPTER_CONFIG} that is not JSON ({error})") from None
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise _misfit(folder, f"an adapter of kind {kind!r}, expected LORA")
    more = [key for key in _MEANS_MORE if config.get(key)]
    if config.get("bias", "none") != "none":
        more.append("bias")
    if more:
        raise _misfit(folder, f"{more[0]} = {config[more[0]]!r}, which is more than a low-rank update of linear layers")
    return config


def _scale(config: dict[str, Any], path: str, rank: int) -> float:
    """alpha / r, or alpha / √r; a pattern's key stands for the end of a layer's path, as in PEFT."""
    alphas = (
        value
        for key, value in (config.get("alpha_pattern") or {}).items()
        if re.fullmatch(rf"(?:.*\.)?(?:{key})", path)
    )
    alpha = float(next(alphas, config.get("lora_alpha", 8)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _misfit(folder: Path, got: str) -> UserError:
    return UserError(
        f"the adapter in {folder} cannot be served with this base model: got {got}; expected a LoRA adapter in PEFT's "
        "format that was made for it. Check its base model, or merge the adapter and serve the result as a model",
        param="model",
        code="checkpoint_mismatch",
    )
