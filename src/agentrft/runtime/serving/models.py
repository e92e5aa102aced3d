"""Which models are loaded: base models and fine-tuned ones in a bounded number, adapters in a bounded number each.

Whatever was used longest ago goes first. A model whose place is taken takes no new requests but plays those that it
has to their end; who wants its place waits for that, and never for new ones.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agentrft.chat import AnyFormat, FastTokenizer, pick_format
from agentrft.engines.models import load_tokenizer
from agentrft.errors import UserError
from agentrft.jobs.models import Weights

if TYPE_CHECKING:
    from agentrft.engines.torch_serving import ServingEngine

_ADAPTER_FILE, _FULL_FILE = "adapter_model.safetensors", "model.safetensors"

Key = tuple[Path, Path | None, str]
"""Base model, full weights to load over it, and what tells those from others that were in the same folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is kept in memory."""

    max_models: int = 2
    max_adapters: int = 32
    """A model."""
    max_cache_bytes: int
    """Keys and values, all models together."""
    max_sequences: int = 128
    """Requests that decode together in one model; more wait."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(slots=True, eq=False)
class Model:
    """A loaded base or fine-tuned model."""

    engine: ServingEngine
    tokenizer: FastTokenizer
    max_adapters: int
    _formats: dict[str, AnyFormat] = field(default_factory=dict)
    _adapters: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Least recently used first."""
    _adding: asyncio.Lock = field(default_factory=asyncio.Lock)

    def format(self, name: str) -> AnyFormat:
        """The chat format of that name; raises UserError where this tokenizer has it not."""
        if name not in self._formats:
            self._formats[name] = pick_format(self.tokenizer, name)
        return self._formats[name]

    async def adapter(self, folder: Path) -> str:
        """The generator's name of the adapter in `folder`, loaded if need be; raises UserError when it does not fit."""
        async with self._adding:
            name = await asyncio.to_thread(_identity, folder, _ADAPTER_FILE)
            if name not in self._adapters:
                await self.engine.generator.add_adapter(name, folder)
                while len(self._adapters) >= self.max_adapters:
                    self.engine.generator.remove_adapter(self._adapters.popitem(last=False)[0])
            self._adapters[name] = None
            self._adapters.move_to_end(name)
        return name


@dataclass(slots=True, eq=False)
class _Place:
    """A model that is loaded, or will be."""

    loading: asyncio.Task[Model]
    users: int = 0
    """Requests that play it or wait for it."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_loaded(self) -> bool:
        return self.loading.done() and not self.loading.cancelled() and self.loading.exception() is None

    async def retire(self) -> None:
        """Close the model once nobody plays it."""
        while self.users:
            await self.idle.wait()
        await self.loading.result().engine.close()


class Models:
    """Loads models when they are asked for."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._places: OrderedDict[Key, _Place] = OrderedDict()
        """Least recently used first."""
        self._turn = asyncio.Lock()
        """One model is loaded at a time."""

    @asynccontextmanager
    async def use(self, weights: Weights) -> AsyncIterator[Model]:
        """The model that plays `weights`, kept while inside; raises UserError when it cannot be loaded."""
        key = await asyncio.to_thread(_key, weights)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(asyncio.create_task(self._load(key)))
            place.loading.add_done_callback(lambda _: self._forget_failed(key, place))
        self._places.move_to_end(key)
        place.users += 1
        place.idle.clear()
        try:
            # A request that goes away must not stop a load that others wait for.
            yield await asyncio.shield(place.loading)
        finally:
            place.users -= 1
            if place.users == 0:
                place.idle.set()

    async def close(self) -> None:
        """Stop every engine that is loaded."""
        places = list(self._places.values())
        self._places.clear()
        for place in places:
            if place.is_loaded:
                await place.loading.result().engine.close()
            else:
                place.loading.cancel()

    async def _load(self, key: Key) -> Model:
        async with self._turn:
            await self._make_place()
            return await asyncio.to_thread(_load, key, self._bounds)

    async def _make_place(self) -> None:
        """Retire what was used longest ago, idle ones first, until a place is free."""
        while True:
            loaded = [key for key, place in self._places.items() if place.is_loaded]
            if len(loaded) < self._bounds.max_models:
                return
            idle = [key for key in loaded if self._places[key].users == 0]
            # Gone from the table before it is waited for: requests that come now wait for a place of their own.
            await self._places.pop((idle or loaded)[0]).retire()

    def _forget_failed(self, key: Key, place: _Place) -> None:
        if not place.is_loaded and self._places.get(key) is place:
            del self._places[key]


def _load(key: Key, bounds: Bounds) -> Model:
    from agentrft.engines.torch_constraint import TextTokens
    from agentrft.engines.torch_engine import GeneratorSettings
    from agentrft.engines.torch_serving import ServingEngine

    folder, trained, _ = key
    source: Any = load_tokenizer(folder)
    tokenizer = FastTokenizer(source)
    tokens = TextTokens(
        backend=source.backend_tokenizer, encode=tokenizer.encode, control_tokens=tokenizer.control_tokens
    )
    settings = GeneratorSettings(
        max_sequences=bounds.max_sequences, max_cache_bytes=bounds.max_cache_bytes // bounds.max_models
    )
    engine = ServingEngine.load(
        folder,
        trained=trained,
        tokens=tokens,
        dtype=bounds.dtype,
        settings=settings,
    )
    return Model(engine=engine, tokenizer=tokenizer, max_adapters=bounds.max_adapters)


def _key(weights: Weights) -> Key:
    if weights.trained is None or not weights.is_full:
        return weights.folder.resolve(), None, ""
    return weights.folder.resolve(), weights.trained.resolve(), _identity(weights.trained, _FULL_FILE)


def _identity(folder: Path, file: str) -> str:
    """A name that changes whenever the weights in `folder` do."""
    try:
        status = (folder / file).stat()
    except OSError as error:
        raise UserError(
            f"{folder / file} cannot be read ({error.strerror}); expected the weights that the model's name stood for: "
            "choose another checkpoint",
            param="model",
            code="model_not_found",
        ) from None
    return f"{folder.resolve()}@{status.st_ino}.{status.st_mtime_ns}.{status.st_size}"
