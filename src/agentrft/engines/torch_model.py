"""A transformers causal LM made ready for rollouts and training: our attention, adapters, fused parts.

The model keeps transformers' own forward code, so every family with full or sliding attention works. We replace its
attention function (through transformers' attention registry) and swap single modules for faster ones only after both
gave the same numbers on random input. A final probe compares the adapted model with the untouched one; a family that
does something we do not reproduce is refused with the difference, never trained wrongly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from agentrft.engines import torch_layers as layers
from agentrft.engines.torch_attention import ForestAttention, Piece
from agentrft.engines.torch_packed import PackedLinear
from agentrft.errors import UserError

DtypeName = Literal["auto", "float32", "bfloat16"]
Attend = Callable[[int, Tensor, Tensor, Tensor, float, "int | None"], Tensor]
"""(layer, q [N, heads, D], k, v [N, kv_heads, D], scale, window) → [N, heads, D]."""

_ATTENTION = "agentrft"
_SUPPORTED_LAYERS = {"full_attention", "sliding_attention"}
_PROBE_TOLERANCE = 2e-3
"""Largest log-prob difference (nats, float32) between our forward and transformers' that the load probe accepts."""
_TIMINGS = 16
"""Products in each type before one is chosen: a tenth of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSpec:
    """A low-rank adapter on every linear layer of the decoder blocks (embeddings and head stay as they are)."""

    rank: int = 16
    alpha: float = 32.0


def _attention_function(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface: [1, heads, N, D] in, [1, N, heads, D] out."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out = kwargs["attend"](module.layer_idx, q, k, v, kwargs["scaling"], kwargs.get("sliding_window"))
    return out.unsqueeze(0), None


class TorchModel:
    """One causal LM with its adapter, in one dtype on one device."""

    def __init__(self, network: Any, *, lora: LoraSpec | None, dtype: torch.dtype, seed: int) -> None:
        """Use `load_model`; this takes an adapted transformers model."""
        self.network = network
        self.config = network.config
        self.dtype = dtype
        self.lora = lora
        self.device = network.device
        self.seed = seed
        self.body = network.get_decoder()
        self.head: nn.Parameter = network.get_output_embeddings().weight
        self.version = 0
        """Optimiser steps applied."""
        self._packed_head: PackedLinear | None = None

    @property
    def context_tokens(self) -> int:
        return int(getattr(self.config, "max_position_embeddings", 1 << 20))

    @property
    def vocabulary(self) -> int:
        return int(self.head.shape[0])

    @property
    def n_layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def kv_shape(self) -> tuple[int, int]:
        """Key heads and head width of one layer."""
        heads = self.config.num_attention_heads
        width = getattr(self.config, "head_dim", None) or self.config.hidden_size // heads
        return int(getattr(self.config, "num_key_value_heads", None) or heads), int(width)

    def forward(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Final hidden states [N, E] (after the last norm) of tokens ids [N] at positions [N]."""
        out = self.body(input_ids=ids[None], position_ids=positions[None], use_cache=False, attend=attend)
        return out.last_hidden_state[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, V] (float32) of hidden states [N, E], without gradients."""
        head = self._packed_head
        return (nn.functional.linear(hidden, self.head) if head is None else head(hidden)).float()

    def pack(self) -> None:
        """Keep a packed copy of the adapted weights and of the head, for products without gradients."""
        self._packed_head = PackedLinear(self.head)
        for module in self.network.modules():
            if isinstance(module, layers.LoraLinear):
                module.packed = PackedLinear(module.weight)
            elif isinstance(group := module.__dict__.get("inputs"), layers.LoraGroup):
                group.pack()

    def adapters(self) -> Iterator[tuple[str, layers.LoraLinear]]:
        """Adapted layers with their module path inside the transformers model."""
        for name, module in self.network.named_modules():
            if isinstance(module, layers.LoraLinear):
                yield name, module

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name: adapter matrices, or every weight when there is no adapter."""
        if self.lora is None:
            return dict(self.network.named_parameters())
        named: dict[str, nn.Parameter] = {}
        for name, module in self.adapters():
            named[f"{name}.lora_A.weight"] = module.lora_a
            named[f"{name}.lora_B.weight"] = module.lora_b
        return named

    def merge(self, *, adapter: bool = True) -> None:
        """Bring the merged weights up to date with the adapter, or set the adapter aside."""
        for _, module in self.adapters():
            module.merge(adapter=adapter)


def load_model(
    folder: Path,
    *,
    lora: LoraSpec | None,
    dtype: DtypeName = "auto",
    device: str = "auto",
    seed: int = 0,
) -> TorchModel:
    """A model folder (config.json and safetensors) as a TorchModel.

    Raises UserError where the architecture cannot be tree-packed or the load probe does not agree with transformers.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    config = AutoConfig.from_pretrained(folder).get_text_config()
    _refuse_unsupported(config)
    where = _pick_device(device)
    picked = _pick_dtype(dtype, where)
    AttentionInterface.register(_ATTENTION, _attention_function)
    network: Any = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True
    )
    network.eval()
    ids = torch.randint(0, config.vocab_size, (24,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = network(input_ids=ids[None], use_cache=False).logits[0].log_softmax(-1)
    network.requires_grad_(lora is None)
    network.set_attn_implementation(_ATTENTION)
    _swap_parts(network)
    _probe(TorchModel(network, lora=lora, dtype=torch.float32, seed=seed), ids, expected)
    network.to(where)
    if lora is not None:
        _add_adapters(network, lora, picked, seed)
    for module in network.modules():
        if not isinstance(module, layers.LoraLinear) and not _is_rotary(module):
            _cast_own(module, picked)
    return TorchModel(network, lora=lora, dtype=picked, seed=seed)


def _refuse_unsupported(config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ()) | set(getattr(config, "layers_block_type", None) or ())
    kinds -= {"attention"}
    family = getattr(config, "model_type", "unknown")
    recurrent = sorted(kinds - _SUPPORTED_LAYERS)
    if not recurrent and any(word in family for word in ("mamba", "rwkv", "xlstm", "recurrent", "kimi_linear")):
        recurrent = [family]
    if recurrent:
        raise UserError(
            f"model family {family!r} has layers of kind {', '.join(recurrent)}, which carry state across a prefix "
            "tree's branches and cannot be trained or sampled here; expected a causal LM whose layers are all full or "
            "sliding attention: choose another model",
            param="model",
            code="model_unsupported",
        )
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise UserError(
            f"model family {family!r} caps its attention logits, which this engine does not reproduce; choose a model "
            "without attn_logit_softcapping",
            param="model",
            code="model_unsupported",
        )


def _pick_device(device: str) -> torch.device:
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _pick_dtype(dtype: DtypeName, device: torch.device) -> torch.dtype:
    """`auto` measures one matrix product in each type: bfloat16 is up to 4× faster or 10× slower by CPU."""
    if dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    return torch.bfloat16 if bfloat16_speedup(device) > 1.2 else torch.float32


def bfloat16_speedup(device: torch.device) -> float:
    """How many times faster a 256 × 1024 × 1024 product is in bfloat16 than in float32 on this device."""
    kinds = (torch.float32, torch.bfloat16)
    operands = {kind: [torch.ones(n, 1024, dtype=kind, device=device) for n in (256, 1024)] for kind in kinds}
    best = dict.fromkeys(kinds, float("inf"))
    # In turns and often, the fastest of each: whatever else the machine does should not decide.
    for _ in range(_TIMINGS):
        for kind, (x, w) in operands.items():
            start = time.perf_counter()
            float(nn.functional.linear(x, w)[0, 0])  # waits for the device
            best[kind] = min(best[kind], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]


def _is_rotary(module: nn.Module) -> bool:
    return hasattr(module, "inv_freq")


def _cast_own(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast a module's own float parameters and buffers, not its children's; rotary tables stay float32."""
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_floating_point():
            setattr(module, name, buffer.to(dtype))


def _add_adapters(network: Any, lora: LoraSpec, dtype: torch.dtype, seed: int) -> None:
    head = network.get_output_embeddings()
    generator = torch.Generator().manual_seed(seed)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child is not head:
                adapted = layers.LoraLinear(child, rank=lora.rank, alpha=lora.alpha, dtype=dtype, generator=generator)
                setattr(parent, name, adapted)
    for module in network.modules():
        if "inputs" in module.__dict__:
            names = ("q_proj", "k_proj", "v_proj") if hasattr(module, "q_proj") else ("gate_proj", "up_proj")
            module.inputs = layers.LoraGroup.of(*(getattr(module, name) for name in names))


def _swap_parts(network: Any) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                fused = _fused_norm(child)
                if fused is not None:
                    setattr(parent, name, fused)
        if all(hasattr(parent, part) for part in ("gate_proj", "up_proj", "down_proj", "act_fn")):
            _fuse_mlp(parent)
        if all(hasattr(parent, part) for part in ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "layer_idx")):
            _fuse_attention(parent)


def _fused_norm(norm: Any) -> nn.Module | None:
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    weight = getattr(norm, "weight", None)
    if eps is None or weight is None or weight.dim() != 1:
        return None
    x = torch.linspace(-2.0, 3.0, 2 * weight.shape[0]).view(2, -1)
    for offset in (0.0, 1.0):
        fused = layers.RmsNorm(weight, eps=float(eps), offset=offset)
        with torch.no_grad():
            if torch.allclose(fused(x), norm(x), atol=1e-5, rtol=1e-5):
                return fused
    return None


def _fuse_mlp(mlp: Any) -> None:
    original = mlp.forward
    mlp.inputs = None

    def forward(x: Tensor) -> Tensor:
        gate, up = mlp.inputs(x).chunk(2, -1) if mlp.inputs is not None else (mlp.gate_proj(x), mlp.up_proj(x))
        return mlp.down_proj(layers.swiglu(gate, up))

    x = torch.linspace(-1.0, 1.0, 2 * mlp.gate_proj.in_features).view(1, 2, -1)
    with torch.no_grad():
        if torch.allclose(forward(x), original(x), atol=1e-5, rtol=1e-4):
            mlp.forward = forward


def _fuse_attention(module: Any) -> None:
    """Replace an attention forward by one that stays in [N, heads, D], when both give the same."""
    original = module.forward
    module.inputs = None
    has_norms = getattr(module, "q_norm", None) is not None and getattr(module, "k_norm", None) is not None
    width = module.head_dim
    heads, kv_heads = (part.out_features // width for part in (module.q_proj, module.k_proj))
    asked: list[tuple[float, int | None]] = []

    def forward(
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        attend: Attend | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        x = hidden_states[0]
        cos, sin = (table[0, :, None, : width // 2] for table in position_embeddings)
        if module.inputs is not None:
            joined = module.inputs(x)
        else:
            joined = torch.cat([module.q_proj(x), module.k_proj(x), module.v_proj(x)], -1)
        qk, v = joined.view(x.shape[0], -1, width).split([heads + kv_heads, kv_heads], 1)
        if has_norms:
            q, k = qk.split([heads, kv_heads], 1)
            qk = torch.cat([module.q_norm(q), module.k_norm(k)], 1)
        # Rotated together: starting an operation costs more than what it computes where there are few rows.
        q, k = layers.rope(qk, cos, sin).split([heads, kv_heads], 1)
        assert attend is not None
        out = attend(module.layer_idx, q, k, v, *asked[0])
        return module.o_proj(out.reshape(x.shape[0], -1)).unsqueeze(0), None

    length = 5
    hidden = torch.linspace(-1.0, 1.0, length * module.q_proj.in_features).sin().view(1, length, -1)
    positions = torch.arange(length)
    plain = ForestAttention([Piece(0, length, 0, length)], positions)

    def recording(layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        asked.append((scale, window))
        return plain(layer, q, k, v, scale, window)

    angles = torch.outer(positions.float() + 1.0, torch.linspace(0.01, 1.0, width // 2))
    table = torch.cat([angles, angles], -1)[None]
    call = {"position_embeddings": (table.cos(), table.sin()), "attention_mask": None}
    try:
        with torch.no_grad():
            expected = original(hidden, attend=recording, **call)[0]
            got = forward(hidden, attend=plain, **call)[0]
    except (TypeError, RuntimeError, ValueError, AttributeError, KeyError):
        # A family whose attention takes other arguments or shapes keeps transformers' own code.
        return
    if torch.allclose(got, expected, atol=1e-5, rtol=1e-4):
        module.forward = forward


def _probe(model: TorchModel, ids: Tensor, expected: Tensor) -> None:
    """Compare with transformers on a small tree: a shared half, then the rest twice as two branches."""
    n = len(ids)
    half = n // 2
    branch = n - half
    tree = torch.cat([ids, ids[half:]])
    positions = torch.cat([torch.arange(n), torch.arange(half, n)])
    pieces = [
        Piece(0, half, 0, half),
        Piece(half, n, half, n),
        Piece(n, n + branch, n, n + branch),
        Piece(half, n + branch, 0, half),
    ]
    with torch.no_grad():
        hidden = model.forward(tree, positions, ForestAttention(pieces, positions))
        got = nn.functional.linear(hidden, model.head)
        scale = getattr(model.config, "logits_scaling", 1.0) or 1.0
        difference = max(
            float(((got[:n] / scale).log_softmax(-1) - expected).abs().max()),
            float(((got[n:] / scale).log_softmax(-1) - expected[half:]).abs().max()),
        )
    if scale != 1.0 or getattr(model.config, "final_logit_softcapping", None) or not difference < _PROBE_TOLERANCE:
        raise UserError(
            f"model family {model.config.model_type!r} does not compute the same here as in transformers: log-probs "
            f"differ by {difference:.3g} nats on a probe, expected under {_PROBE_TOLERANCE}; it uses a feature this "
            "engine does not reproduce, choose another model",
            param="model",
            code="model_unsupported",
        )
