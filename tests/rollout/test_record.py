from dataclasses import replace

import pytest

from agentrft.graders import sample_from_episode
from agentrft.rollout import row_of, run_episode, trained_tokens


async def test_a_row_gives_each_turns_generated_tokens_its_credit_and_nothing_else_any(agent, item, key):
    episode = await run_episode(item, key, agent("!look", "4"))
    row = row_of(episode, [0.25, -0.5], group="row-1#0")
    # 8 prompt, 6 generated, 7 result, 2 generated (see test_episode)
    assert list(row.credit) == [0.0] * 8 + [0.25] * 6 + [0.0] * 7 + [-0.5] * 2
    assert (row.unit, row.group) == (episode.id, "row-1#0")
    assert row.ids == episode.tokens.ids
    assert trained_tokens(episode) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"trained": [True, *t.trained[1:]]}, "trained tokens are not the generated ones"),
        (lambda t: {"trained": [*t.trained[:-1], False]}, "trained tokens are not the generated ones"),
        (lambda t: {"log_probs": [-1.0, *t.log_probs[1:]]}, "not generated has a log-prob"),
        (lambda t: {"log_probs": t.log_probs[1:]}, "differ in length"),
        (lambda t: {"prompt_tokens": t.prompt_tokens + 1}, "does not follow"),
    ],
)
async def test_a_broken_invariant_is_a_crash(agent, item, key, change, message):
    episode = await run_episode(item, key, agent("!look", "4"))
    broken = replace(episode, tokens=replace(episode.tokens, **change(episode.tokens)))
    with pytest.raises(AssertionError, match=message):
        row_of(broken, [1.0, 1.0], group="g")


async def test_text_only_episodes_cannot_become_rows(agent, item, key):
    episode = await run_episode(item, key, agent("4"))
    with pytest.raises(AssertionError, match="not played by a token-exact actor"):
        row_of(replace(episode, tokens=None), [1.0], group="g")


async def test_a_sample_is_what_the_grader_needs(agent, item, key):
    sample = sample_from_episode(await run_episode(item, key, agent("!look", "4")))
    assert (sample.output_text, sample.output_tools, sample.n_calls) == ("4", (), 1)
    assert len(sample.messages) == 5


async def test_an_episode_without_an_answer_has_an_empty_output_text(agent, item, key):
    sample = sample_from_episode(await run_episode(item, key, agent("!", "!", "!")))
    assert (sample.output_text, sample.stop_reason.value, sample.n_calls) == ("", "malformed", 3)
