"""Which diagnosis a rung of the ladder gets: the same items for every rung, as many as the budget has left."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agentrft import build
from agentrft.jobs.models import find_weights
from agentrft.jobs.rows import items_of
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.rules import Thresholds
from agentrft.runtime.diagnose import Request
from agentrft.runtime.diagnosed import Settings

SPLIT = "train"
"""Only its episodes may be trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of one diagnosis."""

    items: int
    samples: int

    @property
    def episodes(self) -> int:
        """In all."""
        return self.items * self.samples

    def within(self, left: int) -> Sizes | None:
        """At most `left` episodes, by leaving items out; None where that leaves too few items to decide anything."""
        items = min(self.items, left // self.samples)
        return Sizes(items=items, samples=self.samples) if items >= min(self.items, Thresholds().min_items) else None


def diagnosis_request(
    spec: JobSpec,
    base_dir: Path,
    model: str,
    sizes: Sizes,
    *,
    load: build.LoadEngine | None,
) -> Request:
    """The diagnosis of this agent with this model on training items drawn by the job's seed.

    It is the one that `agentrft diagnose` would make of these sizes, so what that has played is not played again.
    """
    found = items_of(spec, base_dir, SPLIT)
    places = random.Random(spec.seed).sample(range(len(found)), min(sizes.items, len(found)))
    chosen = [found[place] for place in sorted(places)]
    return Request(
        spec=spec,
        base_dir=base_dir,
        settings=Settings(split=SPLIT, items=chosen, samples=sizes.samples, model=model),
        find=partial(find_weights, model, base_dir=base_dir),
        load=load,
    )
