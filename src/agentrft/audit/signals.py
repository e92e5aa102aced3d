"""What the alarms measure: pure functions of groups and numbers, one formula each. No state, no thresholds.

Source of all: `reference/algorithms.md` §5.3, unless the docstring names another. None means "cannot be said here".
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from agentrft.credit import reward_of
from agentrft.types import Episode, Grade, Group, Item, StopReason, ToolCall

Counts = Mapping[str, int]
"""n-gram → episodes that contain it."""

MIN_EPISODES = 5
"""An n-gram in fewer episodes than this is chance."""
MIN_ITEMS = 4
"""With fewer items one template on many of them is chance."""
MIN_PAIRS = 20
"""With fewer pairs of grades κ is mostly noise."""


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else None


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope of (x, y) points, y per x; 0.0 of fewer than two points."""
    if len(points) < 2:
        return 0.0
    x_mean, y_mean = (math.fsum(values) / len(points) for values in zip(*points, strict=True))
    spread = math.fsum((x - x_mean) ** 2 for x, _ in points)
    return math.fsum((x - x_mean) * (y - y_mean) for x, y in points) / spread if spread else 0.0


def rise(points: Sequence[tuple[float, Mapping[str, float]]]) -> tuple[float, float]:
    """How far a figure rose from the first x to the last, by least squares, and the standard error of that.

    Points are (x, item → value). The rise is the mean over the items that every point has, each with a slope of its
    own: what makes an item hard is in all its values and does not count as noise. The error is over items, 0.0 for one;
    without a common item both are 0.0.
    """
    common = [item for item in points[0][1] if all(item in values for _, values in points)] if points else []
    span = points[-1][0] - points[0][0] if points else 0.0
    rises = [slope([(x, values[item]) for x, values in points]) * span for item in common]
    error = statistics.stdev(rises) / math.sqrt(len(rises)) if len(rises) > 1 else 0.0
    return mean(rises) or 0.0, error


def rewarded(groups: Sequence[Group]) -> list[tuple[Episode, float]]:
    """The episodes that have a reward, with it."""
    pairs = [pair for group in groups for pair in zip(group.episodes, group.grades, strict=True)]
    rewards = [(episode, reward_of(grade, episode.stop_reason)) for episode, grade in pairs]
    return [(episode, reward) for episode, reward in rewards if reward is not None]


def generated_tokens(episode: Episode) -> int:
    """Tokens the policy generated; 0 for an actor that gives text only."""
    return sum(episode.tokens.trained) if episode.tokens else 0


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Rank correlation, ties at their mean rank; None where either side is constant. Source: Spearman 1904."""
    if len(xs) < 2 or len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    pairs = list(zip(_ranks(xs), _ranks(ys), strict=True))
    centre = (len(xs) + 1) / 2
    product = math.fsum((x - centre) * (y - centre) for x, y in pairs)
    squares = [math.fsum((rank - centre) ** 2 for rank in side) for side in zip(*pairs, strict=True)]
    return product / math.sqrt(squares[0] * squares[1])


def reward_length_rho(groups: Sequence[Group]) -> float | None:
    """Mean over groups of Spearman(reward, generated tokens); groups where it is undefined are left out."""
    return mean(rho for group in groups if (rho := _within(group, lengths=True)) is not None)


def reward_calls_rho(groups: Sequence[Group]) -> float | None:
    """Mean over groups of Spearman(reward, tool calls); groups where it is undefined are left out."""
    return mean(rho for group in groups if (rho := _within(group, lengths=False)) is not None)


def signature_diversity(groups: Sequence[Group]) -> float | None:
    """Mean over groups of distinct canonical call sequences / G; faults left out. From 1/G to 1."""
    shares = []
    for group in groups:
        episodes = [episode for episode in group.episodes if episode.stop_reason is not StopReason.FAULT]
        if episodes:
            shares.append(len({call_signature(episode) for episode in episodes}) / len(episodes))
    return mean(shares)


def call_signature(episode: Episode) -> tuple[str, ...]:
    """The tool calls in order, arguments as canonical JSON (sorted keys, no spaces)."""
    return tuple(_canonical(call) for turn in episode.turns for call in turn.reply.tool_calls)


def decision_entropy_estimate(groups: Sequence[Group]) -> float | None:
    """An estimate of the entropy at tool decisions, in nats per token: the mean −log-prob of the tokens generated in
    replies that call a tool.

    Not the entropy itself, whose expectation it is at temperature 1: only the drawn token's log-prob is recorded.
    """
    episodes = [episode for group in groups for episode in group.episodes]
    return mean(
        -log_prob
        for episode in episodes
        if episode.tokens
        for turn in episode.turns
        if turn.reply.tool_calls
        for log_prob in episode.tokens.log_probs[turn.start : turn.end]
    )


def template_share(groups: Sequence[Group]) -> float | None:
    """How far the agent does one and the same thing whatever it is asked, from 0 to 1; None with fewer than 4 items.

    The larger one of two: the most frequent answer (spaces and case aside), and the most frequent call sequence with
    arguments, as canonical JSON; calls without arguments cannot depend on the item. Frequency is the mean over items of
    the share of that item's episodes, so an item that is played often counts once.

    A stand-in for the retrieval accuracy of RAGEN-2 (arXiv 2604.06268), which needs answers scored under other prompts.
    """
    episodes: dict[str, list[Episode]] = {}
    for group in groups:
        sound = [episode for episode in group.episodes if episode.stop_reason is not StopReason.FAULT]
        episodes.setdefault(group.item.id, []).extend(sound)
    played_I = [of_item for of_item in episodes.values() if of_item]
    if len(played_I) < MIN_ITEMS:
        return None
    shares: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for played in played_I:
        for found in (_answer_template, _call_template):
            for template, count in Counter(map(found, played)).items():
                shares[template] += count / len(played)
    shares.pop((), None)
    return max(shares.values(), default=0.0) / len(played_I)


def _answer_template(episode: Episode) -> tuple[str, ...]:
    words = (episode.answer or "").casefold().split()
    return ("answer", *words) if words else ()


def _call_template(episode: Episode) -> tuple[str, ...]:
    calls = [call for turn in episode.turns for call in turn.reply.tool_calls]
    return ("calls", *map(_canonical, calls)) if any(call.arguments.strip() not in ("", "{}") for call in calls) else ()


def passing_kappa(
    groups: Sequence[Group], regraded: Sequence[Group], pass_threshold: float, other_threshold: float
) -> float | None:
    """Cohen's κ between two graders about which of the same episodes pass; None below 20 pairs, or if undefined."""
    pairs = [
        (first.value >= pass_threshold, second.value >= other_threshold)
        for first, second in zip(_grades(groups), _grades(regraded), strict=True)
        if first.value is not None and second.value is not None
    ]
    return cohen_kappa(pairs) if len(pairs) >= MIN_PAIRS else None


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """(observed − chance agreement) / (1 − chance agreement); None where both say one and the same of all.

    Source: Cohen 1960.
    """
    n = len(pairs)
    if not n:
        return None
    observed = sum(a == b for a, b in pairs) / n
    first, second = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    chance = first * second + (1 - first) * (1 - second)
    return (observed - chance) / (1 - chance) if chance < 1 else None


def is_canary(item: Item) -> bool:
    """Whether nothing right can solve the item: its field `canary` is true."""
    return item.fields.get("canary") is True


def canaries_rewarded(groups: Sequence[Group]) -> list[str]:
    """Ids of episodes with a reward above 0 on items whose field `canary` is true: nothing right can earn it.

    Source: ImpossibleBench, arXiv 2510.20270.
    """
    traps = [group for group in groups if is_canary(group.item)]
    return [episode.id for episode, reward in rewarded(traps) if reward > 0]


def ngrams(episode: Episode) -> set[str]:
    """The 1–3-grams of words that the agent itself wrote, call arguments included, in lower case."""
    found: set[str] = set()
    for turn in episode.turns:
        texts = [turn.reply.content or "", *(call.arguments for call in turn.reply.tool_calls)]
        for words in (text.lower().split() for text in texts):
            found |= {" ".join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)}
    return found


def count_ngrams(episodes: Iterable[Episode]) -> Counter[str]:
    """In how many episodes each n-gram occurs."""
    return Counter(gram for episode in episodes for gram in ngrams(episode))


def emergent_ngrams(
    groups: Sequence[Group], start: Counts, start_episodes: int, *, ratio: float
) -> dict[str, tuple[float, list[str]]]:
    """n-gram → (frequency now / at start, ids of its episodes), those above `ratio` that go with high reward.

    Frequencies are (c + ½) / (n + 1) over episodes, so a word new to the run has a finite ratio. High reward is above
    the mean; kept are n-grams in the top decile of the log-odds ratio with it, and with a positive one.
    """
    played = rewarded(groups)
    centre = mean(reward for _, reward in played)
    if centre is None:
        return {}
    high = count_ngrams(episode for episode, reward in played if reward > centre)
    every = count_ngrams(episode for episode, _ in played)
    n_high = sum(reward > centre for _, reward in played)
    odds = {
        gram: _log_odds(high[gram], n_high, count - high[gram], len(played) - n_high)
        for gram, count in every.items()
        if count >= MIN_EPISODES
    }
    if not odds:
        return {}
    decile = sorted(odds.values())[int(0.9 * (len(odds) - 1))]
    found = {}
    for gram, value in odds.items():
        growth = _share(every[gram], len(played)) / _share(start.get(gram, 0), start_episodes)
        if growth > ratio and value >= decile and value > 0:
            found[gram] = (growth, [episode.id for episode, _ in played if gram in ngrams(episode)])
    return found


def _grades(groups: Sequence[Group]) -> list[Grade]:
    return [grade for group in groups for grade in group.grades]


def _share(count: int, n: int) -> float:
    return (count + 0.5) / (n + 1)


def _log_odds(a: int, n_a: int, b: int, n_b: int) -> float:
    """Log-odds ratio with ½ added to every cell (Haldane 1956)."""
    return math.log((a + 0.5) / (n_a - a + 0.5)) - math.log((b + 0.5) / (n_b - b + 0.5))


def _within(group: Group, *, lengths: bool) -> float | None:
    played = rewarded([group])
    sizes = [float(generated_tokens(episode) if lengths else episode.n_calls) for episode, _ in played]
    return spearman([reward for _, reward in played], sizes)


def _ranks(values: Sequence[float]) -> list[float]:
    """1-based ranks; equal values share the mean of theirs."""
    ordered = sorted(values)
    counts = Counter(values)
    return [ordered.index(value) + (counts[value] + 1) / 2 for value in values]


def _canonical(call: ToolCall) -> str:
    try:
        arguments = json.dumps(json.loads(call.arguments), sort_keys=True, separators=(",", ":"))
    except ValueError:
        arguments = call.arguments
    return f"{call.name} {arguments}"
