"""The value of a decision for the terminal, from its document (`agentrft.diagnose.turn_value`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agentrft.report.text import one_line
from agentrft.report.wording import bounds, gain, number
from agentrft.stats import Interval

_CHOICES_SHOWN = 5
_WIDTH = 60
_MOST_SAMPLES = 256
"""That `--samples` takes."""


def turn_value_view(document: Mapping[str, Any]) -> Group:
    """The decision, what was earned with and without it, what else was decided, and a sentence that says it all."""
    head = Text.assemble(
        (f"turn {document['turn']} of {document['turns']}", "bold"),
        (f"  of {document['episode']}, item {one_line(document['item'], 40)}", "dim"),
    )
    said = f": {document['said']}" if document["said"] else ""
    decision = Text(f"→ {one_line(document['decision'] + said, 2 * _WIDTH)}", style="cyan")
    table = Table.grid(padding=(0, 2))
    for name, words in (("before", "deciding anew"), ("after", "with this decision")):
        table.add_row(words, *_side(document[name]))
    difference = interval_of(document["difference"])
    if difference is not None:
        table.add_row("difference", Text(gain(difference), style="bold"), "")
    parts = [head, decision, Text(replay_text(document), style=_replay_style(document))]
    if varied := document["replay"]["own_results_differ"]:
        parts.append(Text(f"its own calls gave something else than recorded in {varied} continuations", style="dim"))
    parts += [Text(), table]
    if document["choices"]:
        parts += [Text("\nwhat was decided anew:", style="dim"), _choices(document)]
    style = {"raised": "bold green", "lowered": "bold red"}.get(document["verdict"], "bold yellow")
    return Group(*parts, Text(f"\n{verdict_text(document)}", style=style))


def verdict_text(document: Mapping[str, Any]) -> str:
    """What the decision did to the expected reward, in one sentence."""
    where = "" if document["replay"]["equal"] else "in a state that is not the recorded one, "
    difference = interval_of(document["difference"])
    if document["verdict"] == "too_few" or difference is None:
        graded = [_graded(document[side]) for side in ("before", "after")]
        said = f"{where}too few continuations have a grade to say anything: {graded[0]} before, {graded[1]} after"
    elif difference.low == difference.high == 0:
        said = f"{where}the decision made no difference: every continuation earned {number(_mean_of(document))}"
    elif document["verdict"] == "unsure":
        said = f"{where}no effect of the decision is certain: the reward changed by {gain(difference)}"
        more = 4 * document["before"]["episodes"]
        if more <= _MOST_SAMPLES:
            said += f"; --samples {more} would halve the interval"
    else:
        size = Interval(
            mean=abs(difference.mean),
            low=min(abs(difference.low), abs(difference.high)),
            high=max(abs(difference.low), abs(difference.high)),
            n_items=1,
            n_episodes=difference.n_episodes,
        )
        verb = document["verdict"]
        said = f"{where}this decision {verb} the expected reward by {number(size.mean)} {bounds(size)}"
    return f"{said[0].upper()}{said[1:]}."


def replay_text(document: Mapping[str, Any]) -> str:
    """How the state before the turn was reached, and whether it is the recorded one."""
    replay = document["replay"]
    calls = replay["calls"]
    if not calls and replay["equal"]:
        return "no call came before it: the state is the recorded one"
    how = "made again once, and the tools set back for each continuation" if replay["restored"] else "made again"
    made = f"the {calls} call{'s' if calls != 1 else ''} before it {'were' if calls != 1 else 'was'} {how}"
    if replay["equal"]:
        return f"{made}: same results as recorded"
    lines = [
        f"{made}, with OTHER results than recorded in {replay['episodes_that_differ']} continuations: what follows is "
        "about another state"
    ]
    for one in replay["differences"]:
        lines.append(f"  turn {one['turn']}, {one_line(one['what'], _WIDTH)}")
        lines += [f"    {name}: {one_line(one[key], _WIDTH)}" for name, key in (("then", "recorded"), ("now", "got"))]
    return "\n".join(lines)


def interval_of(document: Mapping[str, Any] | None) -> Interval | None:
    """An interval from its JSON; null bounds are infinite."""
    if document is None:
        return None
    low = float("-inf") if document["low"] is None else document["low"]
    high = float("inf") if document["high"] is None else document["high"]
    return Interval(**{**document, "low": low, "high": high})


def _replay_style(document: Mapping[str, Any]) -> str:
    return "dim" if document["replay"]["equal"] else "bold yellow"


def _graded(side: Mapping[str, Any]) -> int:
    return side["episodes"] - side["faults"] - side["ungraded"]


def _mean_of(document: Mapping[str, Any]) -> float:
    return document["before"]["reward"]["mean"]


def _side(side: Mapping[str, Any]) -> tuple[Text, Text]:
    reward = interval_of(side["reward"])
    shown = Text("–") if reward is None else Text.assemble(f"{number(reward.mean)} ", (bounds(reward), "dim"))
    counted = [f"{_graded(side)} of {side['episodes']} graded"]
    if side["faults"]:
        counted.append(f"{side['faults']} fault{'s' if side['faults'] != 1 else ''}")
    if side["ungraded"]:
        counted.append(f"{side['ungraded']} without a grade")
    return shown, Text(", ".join(counted), style="dim")


def _choices(document: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    choices = document["choices"]
    for choice in choices[:_CHOICES_SHOWN]:
        earned = "–" if choice["reward"] is None else number(choice["reward"])
        text = Text(one_line(choice["calls"], _WIDTH))
        if choice["is_recorded"]:
            text.append("  as recorded", style="dim")
        table.add_row(f"{choice['episodes']} ×", f"earned {earned}", text)
    if len(choices) > _CHOICES_SHOWN:
        more = sum(choice["episodes"] for choice in choices[_CHOICES_SHOWN:])
        table.add_row(f"{more} ×", "", Text("something else", style="dim"))
    return table
