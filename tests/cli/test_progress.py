import io

from rich.console import Console

from agentrft.cli import progress
from agentrft.cli.progress import Display
from agentrft.cli.watch import Watch, evaluation_line, step_line
from agentrft.stats import Interval
from agentrft.train.log import EpisodeDone, EvaluationDone, Notice, StepDone

METRICS = {
    "reward_mean": 0.41,
    "success_rate": 0.55,
    "calls_mean": 3.14,
    "signal_frac": 0.8333,
    "tokens_generated": 1900.0,
    "rollout_s": 10.0,
    "learn_s": 1.2,
}


def console(*, terminal: bool, width: int = 80) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width, force_terminal=terminal, color_system=None), file


def episode(done: int, *, planned: int = 2, phase: str = "train") -> EpisodeDone:
    return EpisodeDone(phase=phase, step=1, done=done, planned=planned, grade=0.5, tokens=10)  # type: ignore[arg-type]


def interval(mean: float) -> Interval:
    return Interval(mean=mean, low=mean - 0.1, high=mean + 0.1, n_items=5, n_episodes=10)


def test_a_step_line_has_reward_and_speed_and_fits_80_columns() -> None:
    line = step_line(StepDone(step=3, steps=12, metrics=METRICS)).plain
    # 1900 tokens in 10 s; 10 s + 1.2 s.
    assert line == " 3/12  reward 0.41  success 0.55  calls 3.1  signal 83%  190 tokens/s  11 s"
    assert len(line) <= 80


def test_evaluations_say_what_was_measured() -> None:
    done = EvaluationDone(split="validation", stage="step-4", step=4, reward=interval(0.4), success=interval(0.5))
    assert evaluation_line(done).plain == (
        "validation after step 4: reward 0.40 [0.30, 0.50], success 0.50 [0.40, 0.60]"
    )
    other = EvaluationDone(split="new_names", stage="sft", step=0, reward=interval(0.4), success=interval(0.5))
    assert evaluation_line(other).plain.startswith("sft on new names: reward 0.40")


def test_without_a_terminal_finished_steps_and_notices_are_plain_lines() -> None:
    target, file = console(terminal=False)
    with Display(target) as display, Watch(display, "reinforcement", steps=2) as watch:
        for done in (1, 2):
            watch(episode(done))
        watch(StepDone(step=1, steps=2, metrics=METRICS))
        watch(Notice(message="careful", level="warn"))
    assert file.getvalue().splitlines()[0].startswith("1/2  reward 0.41")
    assert file.getvalue().splitlines()[1] == "careful"
    assert "\x1b" not in file.getvalue()


def test_without_a_terminal_a_long_task_speaks_now_and_then() -> None:
    target, file = console(terminal=False)
    progress_every, progress.PLAIN_EVERY_S = progress.PLAIN_EVERY_S, 0.0
    try:
        with Display(target) as display, display.task("measuring", 4) as task:
            task.advance(1, "reward 0.50")
            task.advance(3)
    finally:
        progress.PLAIN_EVERY_S = progress_every
    first, last = file.getvalue().splitlines()
    assert first.startswith("measuring: 1/4 · ")
    assert first.endswith("left reward 0.50")
    assert last == "measuring: 4/4 reward 0.50"
