import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from agentrft.report.model import Report, Shown
from agentrft.report.terminal import gain_lines, next_step_lines, stage_table, transcript_view


def printed(renderable: RenderableType, width: int = 80, *, soft_wrap: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable, soft_wrap=soft_wrap)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_stage_table_fits_and_cuts_nothing(report: Report, width: int) -> None:
    text = printed(stage_table(report.stages), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "rft" in text
    assert "0.77 [0.72, 0.82]" in text


def test_a_long_name_gives_way_to_the_figures(report: Report) -> None:
    stages = [replace(stage, name="smollm2-135m-instruct-filenav-29l0fh") for stage in report.stages]
    text = printed(stage_table(stages))
    assert "[0.72, 0.82]" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("smollm2-135m-instruct") == len(stages)


def test_a_split_shows_only_stages_measured_on_it(report: Report) -> None:
    text = printed(stage_table(report.stages, split="new_names"))
    assert "rft" in text
    assert "base" not in text


def test_gains_carry_signs(report: Report) -> None:
    assert "+0.72 [+0.65, +0.79]" in printed(gain_lines(report.gains))
    assert "−0.20 [−0.30, −0.10]" in printed(gain_lines(report.gains))


def test_a_transcript_reads_in_order_without_escape_sequences(shown: Shown) -> None:
    text = printed(transcript_view(shown))
    assert "\x1b" not in text
    assert "\x07" not in text
    order = [text.index(part) for part in ("reward 0.85, 1 call", "What is the port?", 'grep(text="billing"', "4821")]
    assert order == sorted(order)
    assert "alert('owned')" in text  # what was said stays readable


def test_rich_markup_in_model_text_is_not_interpreted(shown: Shown) -> None:
    answer = replace(shown.episode.turns[-1].reply, content="[bold]4821[/bold] [link=http://evil]x[/link]")
    turns = (*shown.episode.turns[:-1], replace(shown.episode.turns[-1], reply=answer))
    episode = replace(shown.episode, turns=turns)
    assert "[bold]4821[/bold]" in printed(transcript_view(Shown(label="a", episode=episode, reward=None)))


def test_long_entries_are_cut_and_say_so(shown: Shown) -> None:
    long = replace(shown.episode.turns[0].results[0], output="\n".join(f"line {n}" for n in range(30)))
    turns = (replace(shown.episode.turns[0], results=(long,)), shown.episode.turns[1])
    text = printed(
        transcript_view(Shown(label="a", episode=replace(shown.episode, turns=turns), reward=1.0), max_lines=5)
    )
    assert "line 4" in text
    assert "line 5" not in text
    assert "… 25 more lines" in text


def test_commands_are_never_wrapped(report: Report) -> None:
    text = printed(next_step_lines(report.next_steps), width=20, soft_wrap=True)
    assert "  agentrft chat filenav\n" in text
