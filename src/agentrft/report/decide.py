"""A decision for the terminal, from its JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from agentrft.report.text import one_line
from agentrft.report.wording import duration, number

VERDICTS = {
    "too_little_data": "too little data to say",
    "fix_environment": "fix the environment first",
    "fix_grader": "fix the grader first",
    "done": "done: nothing left to train",
    "optimise": "optimise prompt and tools",
    "collect": "collect data",
    "supervised": "supervised fine-tuning",
    "supervised_then_reinforcement": "supervised fine-tuning, then reinforcement",
    "dpo": "preference optimisation (DPO)",
    "reinforcement": "reinforcement fine-tuning",
    "rejection_sampling_or_dpo": "imitate or compare the agent's own episodes, offline",
}
_STYLES = {
    "done": "bold green",
    "too_little_data": "bold yellow",
    "fix_environment": "bold red",
    "fix_grader": "bold red",
}
_SHARES = (
    ("pass_1", "pass@1"),
    ("pass_k", "pass@K"),
    ("mixed", "items with signal"),
    ("never", "never solved"),
    ("always", "always solved"),
    ("headroom", "headroom"),
    ("faults", "faults"),
    ("interface_share", "failures of the interface"),
    ("format_share", "failures of form"),
    ("horizon", "tool calls"),
    ("predictability", "predictability"),
    ("icc", "grader ICC"),
    ("rho", "second grader ρ"),
    ("demos", "demonstrations"),
    ("self_demos", "own successes"),
    ("pairs", "preference pairs"),
    ("rollout_pairs", "pairs of own episodes"),
)


def decision_view(document: Mapping[str, Any]) -> list[RenderableType]:
    """Verdict, rule, numbers, how sure, and what would change it."""
    verdict, stability = document["verdict"], document["stability"]
    text = Text("DECIDE  ", style="bold").append(VERDICTS[verdict], style=_STYLES.get(verdict, "bold cyan"))
    lines: list[RenderableType] = [text, Text(f"rule {document['rule']}: {document['why']}")]
    if numbers := [condition["text"] for condition in document["conditions"]]:
        lines.append(Text(f"  because {'; '.join(numbers)}", style="dim"))
    sure = Text(f"stable in {stability['share']:.0%} of {stability['resamples']} resamples of the items")
    if stability["borderline"]:
        others = ", ".join(
            f"{VERDICTS[name]} {share:.0%}" for name, share in stability["verdicts"].items() if name != verdict
        )
        sure.append(f": BORDERLINE ({others})", style="bold yellow")
    lines += [sure, Text(), _numbers(document), Text()]
    lines.append(Text(f"prompts and tools: {document['plateau']['state']}; {document['plateau']['why']}", style="dim"))
    otherwise = document["otherwise"]
    if otherwise["verdict"] != verdict:
        lines.append(Text(f"otherwise {VERDICTS[otherwise['verdict']]} (rule {otherwise['rule']})", style="dim"))
    for near in document["nearest"]:
        missing = "; ".join(_needed(condition) for condition in near["missing"])
        lines.append(Text(f"would be {VERDICTS[near['verdict']]} (rule {near['rule']}) with {missing}", style="dim"))
    if cost := document["cost"]:
        hours = "" if cost["hours"] is None else f", {duration(3600 * cost['hours'])} of playing at this pace"
        lines.append(Text(f"as the job is set: about {cost['episodes']:,} episodes{hours}", style="dim"))
    lines += [Text(f"! {one_line(warning, 200)}", style="yellow") for warning in document["warnings"]]
    lines += [Text(f"next: {command}", style="cyan") for command in document["next_steps"]]
    return lines


def _needed(condition: Mapping[str, Any]) -> str:
    if condition["text"] == condition["what"]:
        return str(condition["what"])
    value = "unknown" if condition["value"] is None else _figure(condition["value"])
    return f"{condition['what']} {condition['relation']} {_figure(condition['bound'])} (is {value})"


def _numbers(document: Mapping[str, Any]) -> Table:
    """Two columns of figures; what is not known is left out."""
    numbers = document["numbers"]
    shown = [(label, _figure(numbers[name])) for name, label in _SHARES if numbers.get(name) is not None]
    half = -(-len(shown) // 2)
    grid = Table.grid(padding=(0, 2, 0, 0))
    for style in ("dim", "", "dim", ""):
        grid.add_column(no_wrap=True, style=style)
    for left, right in zip(shown[:half], [*shown[half:], ("", "")], strict=False):
        grid.add_row(*left, *right)
    return grid


def _figure(value: float) -> str:
    return f"{value:.0f}" if isinstance(value, int) or (value == int(value) and abs(value) >= 2) else number(value)
