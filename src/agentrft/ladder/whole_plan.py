"""What a climb of the whole ladder is given: the job, its budget, and who watches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from agentrft.jobs.spec import JobSpec
from agentrft.ladder.optimise import Task
from agentrft.ladder.rungs import Method
from agentrft.runtime.diagnosed import subject_of
from agentrft.runtime.training import Watcher

_NOT_IN_KEY = ("task", "spec", "typed", "command")
"""Fields of a plan that say nothing of what is played, or are part of its key in another form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholePlan:
    """What to climb, how to measure it, and what it may cost."""

    task: Task
    """The job file; never written."""
    spec: JobSpec
    """What is in it, with another seed where one was asked for."""
    typed: str
    """The job file as it was typed, for commands to type next."""
    command: str = ""
    """What goes on with this climb; `agentrft climb` with the job file where it is empty."""
    splits: Sequence[str] = ("test",)
    """Held-out splits; the first is the one that headlines quote and that gains are judged by."""
    n_items: int = 100
    """Items measured of each split, from its beginning."""
    samples: int = 2
    """Episodes per item and rung when it is measured, at temperature 1."""
    episodes: int = 3000
    """Budget of all diagnoses and of the search for edits together."""
    diagnose_items: int = 50
    diagnose_samples: int = 8
    search: int = 1200
    """Of the budget, what the search for edits may take."""
    validation_items: int = 50
    """Items that choose the best reinforcement checkpoint, from the beginning of the validation split."""
    methods: Sequence[Method] = ()
    """One: it stands in for whatever training is decided on. Several: all of them are trained from the same episodes,
    and compared. None: the decisions choose."""

    @property
    def name(self) -> str:
        """Of the task: the job file's folder."""
        return self.task.base_dir.name

    @property
    def base_dir(self) -> Path:
        """Where the job's paths start."""
        return self.task.base_dir

    @property
    def key(self) -> str:
        """Names the plan: equal plans of the same agent, grader and settings continue each other's climb."""
        sizes = [getattr(self, name) for name in self.__slots__ if name not in _NOT_IN_KEY]
        spec = self.spec.model_dump(mode="json")
        document = [self.task.text, spec, subject_of(self.spec, self.base_dir), sizes]
        digest = hashlib.sha256(json.dumps(document, sort_keys=True, default=list).encode()).hexdigest()
        return f"{self.name}-whole-seed{self.spec.seed}-{digest[:8]}"


def _no_bar(title: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda done: None)


def _no_watch(title: str, steps: int | None) -> AbstractContextManager[Watcher]:
    return nullcontext(lambda progress: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Who is told what happens. All are called from the event loop and must not block."""

    training: Callable[[str, int | None], AbstractContextManager[Watcher]] = _no_watch
    """(what is about to run, optimiser steps or None) → who watches a training or a measurement."""
    episodes: Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]] = _no_bar
    """(what is about to run, how many episodes or None) → who is told how many are done."""
    tell: Callable[[str], None] = lambda text: None
    """A line for people."""
