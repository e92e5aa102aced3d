"""Draws what a training loop or an evaluation reports: bars while it runs, one line per finished step."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType

from rich.text import Text

from agentrft.cli.console import safe
from agentrft.cli.progress import Display, Task
from agentrft.report.wording import bounds, duration, number
from agentrft.train.log import CheckpointSaved, EpisodeDone, EvaluationDone, Notice, Progress, StepDone


class Watch:
    """Call it with every progress record of a run (`RunLog.watch`)."""

    def __init__(self, display: Display, title: str, *, steps: int | None = None) -> None:
        """`steps` None for an evaluation: then there is no outer bar."""
        self._display = display
        self._title = title
        self._steps = steps
        self._stack = ExitStack()
        self._outer: Task | None = None
        self._inner: _Episodes | None = None

    def __enter__(self) -> Watch:
        if self._steps:
            self._outer = self._stack.enter_context(self._display.task(self._title, self._steps))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_episodes()
        self._stack.close()

    def __call__(self, progress: Progress) -> None:
        match progress:
            case EpisodeDone():
                self._episode(progress)
            case StepDone():
                self._step(progress)
            case EvaluationDone():
                self._end_episodes()
                self._display.line(evaluation_line(progress))
            case Notice(message=message, level=level):
                self._display.line(safe(message, {"info": "dim", "warn": "yellow", "error": "red"}[level]))
            case CheckpointSaved():
                pass  # `is_best` shows in the result; one more line a step would drown the figures

    def _episode(self, done: EpisodeDone) -> None:
        if self._inner is None or self._inner.key != (done.phase, done.step):
            self._end_episodes()
            title = f"step {done.step}: episodes" if done.phase == "train" else self._evaluation_title(done)
            self._inner = _Episodes(self._display, title, done)
        self._inner.add(done)

    def _evaluation_title(self, done: EpisodeDone) -> str:
        return f"{done.phase} episodes" if self._steps else self._title

    def _step(self, done: StepDone) -> None:
        self._end_episodes()
        if "reward_mean" in done.metrics:
            self._display.line(step_line(done))
        figures = "  ".join(f"{name} {done.metrics[name]:.3f}" for name in ("nll", "margin") if name in done.metrics)
        if self._outer:
            self._outer.total = done.steps
            self._outer.move_to(done.step, figures)

    def _end_episodes(self) -> None:
        if self._inner:
            self._inner.close()
            self._inner = None


class _Episodes:
    """The bar of the episodes that are being played, with reward and speed so far."""

    def __init__(self, display: Display, title: str, first: EpisodeDone) -> None:
        self.key = (first.phase, first.step)
        self._stack = ExitStack()
        self._task = self._stack.enter_context(display.task(title, first.planned))
        self._started = time.monotonic()
        self._tokens = 0
        self._grades: list[float] = []

    def add(self, done: EpisodeDone) -> None:
        self._tokens += done.tokens
        if done.grade is not None:
            self._grades.append(done.grade)
        reward = f"reward {number(sum(self._grades) / len(self._grades))} · " if self._grades else ""
        speed = self._tokens / max(time.monotonic() - self._started, 1e-3)
        self._task.total = done.planned
        self._task.move_to(done.done, f"{reward}{speed:.0f} tokens/s" if speed < 1e5 else reward)

    def close(self) -> None:
        self._stack.close()


def step_line(done: StepDone) -> Text:
    """` 3/12  reward 0.41  success 0.55  calls 3.1  signal 83 %  190 tokens/s  11.2 s`."""
    metrics = done.metrics
    width = len(str(done.steps))
    text = Text.assemble((f"{done.step:>{width}}/{done.steps}", "bold"))
    text.append("  reward ", style="dim").append(number(metrics["reward_mean"]), style="bold")
    for name, label, form in (
        ("success_rate", "success", "{:.2f}"),
        ("calls_mean", "calls", "{:.1f}"),
        ("signal_frac", "signal", "{:.0%}"),
    ):
        if name in metrics:
            text.append(f"  {label} ", style="dim").append(form.format(metrics[name]))
    rollout_s, learn_s = metrics.get("rollout_s", 0.0), metrics.get("learn_s", 0.0)
    if rollout_s:
        text.append(f"  {metrics.get('tokens_generated', 0.0) / rollout_s:.0f}").append(" tokens/s", style="dim")
    return text.append(f"  {duration(rollout_s + learn_s)}", style="dim")


def evaluation_line(done: EvaluationDone) -> Text:
    """`validation after step 4: reward 0.41 [0.35, 0.47], success 0.55 [0.48, 0.62]`."""
    is_validation = done.split == "validation"
    where = f"validation after step {done.step}" if is_validation else f"{done.stage} on {done.split.replace('_', ' ')}"
    text = Text(f"{where}: reward ", style="dim")
    text.append(number(done.reward.mean), style="bold").append(f" {bounds(done.reward)}, success ", style="dim")
    return text.append(f"{done.success.mean:.2f}").append(f" {bounds(done.success)}", style="dim")
