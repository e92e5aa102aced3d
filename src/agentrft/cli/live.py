"""Opening a job's model with something to look at meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from agentrft.cli.progress import Display

if TYPE_CHECKING:
    from agentrft.build import Live
    from agentrft.jobs.models import Weights
    from agentrft.jobs.spec import JobSpec


async def open_with_progress(
    stack: AsyncExitStack,
    display: Display,
    spec: JobSpec,
    base_dir: Path,
    find: Callable[[], Weights],
    *,
    training: bool,
) -> Live:
    """The job's live objects, closed with `stack`; `find` may have to unpack or download the model first."""
    from agentrft import build

    with display.task("loading the model"):
        weights = await asyncio.to_thread(find)
        opened = build.open_job(spec, base_dir, weights, training=training)
        live = await stack.enter_async_context(opened)
    engine = f"{weights.name}: {live.engine.dtype} on {live.engine.device}, {live.chat_format.name} format"
    display.line(Text(engine, style="dim"))
    return live
