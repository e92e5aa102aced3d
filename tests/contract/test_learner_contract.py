"""What every learner must do, run over each kind. A new kind joins by one fixture and one line in `KINDS`."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.losses import PolicyGradientLoss, SupervisedLoss
from agentrft.protocols import GenerateRequest, Generator, Learner
from agentrft.testing import ScriptedLearner
from agentrft.types import Row

VOCABULARY = 300
KINDS = ["scripted", "torch lora", "torch full", "torch lora bfloat16"]


class Pair:
    """A learner, the generator over the same weights, and a rate at which it learns visibly in a few steps."""

    def __init__(self, learner: Learner, generator: Generator, lr: float) -> None:
        self.learner = learner
        self.generator = generator
        self.lr = lr


Make = Callable[[], Pair]
"""All that one `Make` makes start alike."""


@pytest.fixture(params=KINDS)
async def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Make]:
    engines: list[Any] = []

    def scripted() -> Pair:
        learner = ScriptedLearner(range(VOCABULARY))
        return Pair(learner, learner.generator, lr=1.0)

    def torch_pair() -> Pair:
        from agentrft.engines.torch_engine import LoraSpec, TorchEngine

        lora = LoraSpec(rank=4, alpha=8) if "lora" in request.param else None
        dtype = "bfloat16" if "bfloat16" in request.param else "float32"
        engines.append(TorchEngine.load(folder, lora=lora, dtype=dtype, device="cpu"))
        return Pair(engines[-1].learner, engines[-1].generator, lr=1e-2)

    if request.param == "scripted":
        yield scripted
        return
    pytest.importorskip("torch")
    from oracle import save_tiny_model

    folder = save_tiny_model("llama", tmp_path_factory.mktemp("model"))
    yield torch_pair
    for engine in engines:
        await engine.close()


@pytest.fixture
def exact(request: pytest.FixtureRequest) -> float:
    """How far two ways of computing the same may be apart (nats)."""
    return 0.1 if "bfloat16" in request.node.callspec.id else 1e-4


def row(n: int, *, credit: float = 0.1, unit: str | None = None) -> Row:
    """Row n: a prompt shared by all, then six trained tokens with a tool result between them."""
    prompt = [5, 6, 7, 8, 9, 10]
    ids = [*prompt, 20 + n, 21 + n, 50, 51, 30 + n, 2]
    trained = [False] * 6 + [True, True, False, False, True, True]
    return Row(
        ids=ids,
        trained=trained,
        log_probs=[-1.0 if mark else 0.0 for mark in trained],
        credit=[credit if mark else 0.0 for mark in trained],
        unit=unit or f"row-{n}",
        group="g",
    )


ROWS = [row(n) for n in range(4)]


def likelihood(log_probs: Sequence[Sequence[float]]) -> float:
    return sum(sum(values) for values in log_probs)


async def step(learner: Learner, rows: Sequence[Row], loss: Any = SupervisedLoss(), lr: float = 1e-3) -> None:  # noqa: B008
    await learner.forward_backward(rows, loss)
    await learner.optim_step(lr)


async def test_log_probs_are_aligned_and_zero_where_not_trained(make: Make) -> None:
    learner = make().learner
    for found in (await learner.log_probs(ROWS), (await learner.forward_backward(ROWS, SupervisedLoss())).log_probs):
        assert [len(values) for values in found] == [len(one.ids) for one in ROWS]
        for one, values in zip(ROWS, found, strict=True):
            for mark, value in zip(one.trained, values, strict=True):
                assert (math.isfinite(value) and value < 0.0) if mark else value == 0.0


async def test_a_report_says_what_was_computed(make: Make, exact: float) -> None:
    report = await make().learner.forward_backward(ROWS, SupervisedLoss())
    assert report.loss == pytest.approx(-0.1 * likelihood(report.log_probs), abs=10 * exact)
    assert report.metrics["nll"] == pytest.approx(-likelihood(report.log_probs) / 16, abs=exact)  # 4 rows · 4 tokens
    assert "tokens" not in report.metrics
    assert 0 < report.unique_tokens <= report.row_tokens <= sum(len(one.ids) for one in ROWS)
    assert report.micro_batches >= 1
    assert report.wall_s >= 0.0


async def test_following_the_gradient_makes_tokens_likelier(make: Make) -> None:
    pair = make()
    learner = pair.learner
    before = likelihood(await learner.log_probs(ROWS))
    for _ in range(8):
        await step(learner, ROWS, lr=pair.lr)
    after = likelihood(await learner.log_probs(ROWS))
    assert after > before + 0.5
    for _ in range(8):
        await step(learner, [row(n, credit=-0.1) for n in range(4)], lr=pair.lr)
    assert likelihood(await learner.log_probs(ROWS)) < after


async def test_the_policy_gradient_raises_what_was_rewarded_and_lowers_the_rest(make: Make) -> None:
    pair = make()
    learner = pair.learner
    before = await learner.log_probs(ROWS)
    good = [row(0, credit=0.5), row(1, credit=-0.5)]
    for _ in range(4):
        now = await learner.log_probs(good)
        rows = [
            Row(ids=r.ids, trained=r.trained, log_probs=lp, credit=r.credit, unit=r.unit, group=r.group)
            for r, lp in zip(good, now, strict=True)
        ]
        report = await learner.forward_backward(rows, PolicyGradientLoss())
        assert report.metrics["weight"] == pytest.approx(1.0, abs=0.2)  # on policy: π = μ
        await learner.optim_step(pair.lr)
    after = await learner.log_probs(ROWS)
    assert sum(after[0]) - sum(before[0]) > sum(after[1]) - sum(before[1])


async def test_nothing_changes_before_the_step_and_versions_count_steps(make: Make) -> None:
    learner = make().learner
    assert learner.policy_version == 0
    before = await learner.log_probs(ROWS)
    await learner.forward_backward(ROWS, SupervisedLoss())
    assert await learner.log_probs(ROWS) == before
    assert learner.policy_version == 0
    report = await learner.optim_step(1e-2)
    assert report.grad_norm > 0.0
    assert report.policy_version == learner.policy_version == 1
    assert await learner.log_probs(ROWS) != before
    report = await learner.optim_step(0.0)  # the gradient was cleared
    assert report.grad_norm == 0.0
    assert report.policy_version == 2


async def test_the_gradient_accumulates_until_the_step(make: Make, exact: float) -> None:
    whole, parts = make().learner, make().learner
    await whole.forward_backward(ROWS, SupervisedLoss())
    for one in ROWS:
        await parts.forward_backward([one], SupervisedLoss())
    norms = [(await learner.optim_step(1e-2)).grad_norm for learner in (whole, parts)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4 if exact < 0.01 else 0.05)


async def test_the_reference_stays_where_training_started(make: Make, request: pytest.FixtureRequest) -> None:
    learner = make().learner
    if "full" in request.node.callspec.id:
        with pytest.raises(UserError) as refused:
            await learner.log_probs(ROWS, reference=True)
        assert refused.value.code == "reference_needs_adapter"
        return
    start = await learner.log_probs(ROWS)
    assert await learner.log_probs(ROWS, reference=True) == start
    await step(learner, ROWS, lr=1e-2)
    assert await learner.log_probs(ROWS, reference=True) == start
    assert await learner.log_probs(ROWS) != start


async def test_what_is_saved_comes_back_bit_for_bit_and_goes_on_alike(make: Make, tmp_path: Path) -> None:
    first, second = make().learner, make().learner
    for _ in range(3):
        await step(first, ROWS, lr=1e-2)
    await first.save(tmp_path)
    await step(second, ROWS[:1], lr=1e-2)
    await second.forward_backward(ROWS[2:], SupervisedLoss())  # a gradient under way is dropped
    await second.load(tmp_path)
    assert second.policy_version == 3
    assert await second.log_probs(ROWS) == await first.log_probs(ROWS)
    for learner in (first, second):
        await step(learner, ROWS[1:], lr=1e-2)
    assert await second.log_probs(ROWS) == await first.log_probs(ROWS)
    assert second.policy_version == first.policy_version == 4


async def test_generators_use_the_new_weights_from_their_next_request(make: Make, exact: float) -> None:
    pair = make()

    async def reply() -> tuple[list[int], list[float], set[int]]:
        wanted = GenerateRequest(tokens=ROWS[0].ids[:6], seed=1, max_new_tokens=5, stop_ids=frozenset({2}))
        chunks = [chunk async for chunk in pair.generator.generate(wanted)]
        tokens = [token for chunk in chunks for token in chunk.tokens]
        return tokens, [v for c in chunks for v in c.log_probs], {c.policy_version for c in chunks}

    for version in range(3):
        tokens, log_probs, versions = await reply()
        assert versions == {version}
        ids = [*ROWS[0].ids[:6], *tokens]
        trained = [t >= 6 for t in range(len(ids))]
        zeros = [0.0] * len(ids)
        same = Row(ids=ids, trained=trained, log_probs=zeros, credit=zeros, unit="u", group="g")
        (recomputed,) = await pair.learner.log_probs([same])
        assert recomputed[6:] == pytest.approx(log_probs, abs=exact)
        await step(pair.learner, ROWS, lr=1e-2)


async def test_no_rows_are_no_gradient(make: Make) -> None:
    learner = make().learner
    report = await learner.forward_backward([], SupervisedLoss())
    assert (report.loss, list(report.log_probs)) == (0.0, [])
    assert (await learner.optim_step(1e-2)).grad_norm == 0.0
    assert await learner.log_probs([]) == []
