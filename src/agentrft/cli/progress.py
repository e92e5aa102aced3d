"""Progress of everything that takes longer than a breath: one live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from agentrft.report.wording import duration

PLAIN_EVERY_S = 10.0
"""Without a terminal a running task says how far it is this often."""


class Display:
    """Shows one task at a time on stderr, and permanent lines above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live = Progress(
                SpinnerColumn(style="dim"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=16, complete_style="cyan", finished_style="green"),
                TextColumn("{task.fields[far]}"),
                TextColumn("{task.fields[figures]}", style="dim"),
                console=self._console,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def line(self, text: str | Text) -> None:
        """A line that stays."""
        self._console.print(text, soft_wrap=True)

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Task]:
        """A task with a known number of parts, or (None) one that only spins."""
        shown = self._live.add_task(title, total=total, far="", figures="") if self._live else None
        task = Task(self, title, total, shown)
        try:
            yield task
        finally:
            if self._live and shown is not None:
                self._live.remove_task(shown)

    def update(self, task: Task) -> None:
        """Show the task as it stands."""
        if self._live and task.shown is not None:
            self._live.update(task.shown, completed=task.done, far=task.far(), figures=task.figures)
        elif task.is_due():
            self.line(f"{task.title}: {task.far()} {task.figures}".rstrip())


class Task:
    """How far one task is."""

    def __init__(self, display: Display, title: str, total: int | None, shown: TaskID | None) -> None:
        self.title = title
        self.total = total
        self.shown = shown
        self.done = 0
        self.figures = ""
        self._display = display
        self._started = self._said = time.monotonic()
        self._done_before: int | None = None

    def advance(self, parts: int = 1, figures: str | None = None) -> None:
        """`parts` more are done; `figures` is what to show beside the bar (kept when None)."""
        self._done_before = self._done_before or 0
        self.move_to(self.done + parts, figures)

    def move_to(self, done: int, figures: str | None = None) -> None:
        """`done` parts of the total are done; what a resumed run had done before it began does not count as speed."""
        if self._done_before is None:
            self._done_before = done - 1
        self.done = done
        self.figures = self.figures if figures is None else figures
        self._display.update(self)

    def far(self) -> str:
        """`12/48 · 35 s left`."""
        if self.total is None:
            return ""
        left = self._left_s()
        return f"{self.done}/{self.total}" + (f" · {duration(left)} left" if left else "")

    def is_due(self) -> bool:
        """True once every `PLAIN_EVERY_S`."""
        now = time.monotonic()
        if now - self._said < PLAIN_EVERY_S:
            return False
        self._said = now
        return True

    def _left_s(self) -> float | None:
        made = self.done - (self._done_before or 0)
        if made <= 0 or not self.total or self.done >= self.total:
            return None
        return (time.monotonic() - self._started) * (self.total - self.done) / made
