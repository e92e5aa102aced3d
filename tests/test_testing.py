import itertools
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from agentrft.errors import EngineFault, UserError
from agentrft.protocols import GenerateRequest
from agentrft.testing import (
    CharFormat,
    FakeClock,
    ScriptedChatModel,
    ScriptedGenerator,
    ScriptedGrader,
    ScriptedLearner,
    ScriptedTools,
    check_grader,
    check_tool,
)
from agentrft.types import Grade, Item, Message, Row, ToolCall, ToolResult, ToolSpec

ITEM = Item(id="row-1", messages=(Message(role="user", content="q"),))
SUPERVISED = SimpleNamespace(type="supervised")
PG_TV = SimpleNamespace(type="pg_tv", mask_delta=0.2, weight_cap=5.0)


def request(tokens=(5, 6), *, seed=0, max_new_tokens=8, **changes) -> GenerateRequest:
    return GenerateRequest(tokens=tokens, seed=seed, max_new_tokens=max_new_tokens, stop_ids=frozenset({0}), **changes)


async def collect(generator, asked: GenerateRequest) -> tuple[list[int], list[float], str | None]:
    tokens, log_probs, reason = [], [], None
    async for chunk in generator.generate(asked):
        assert len(chunk.tokens) == len(chunk.log_probs)
        assert reason is None
        tokens, log_probs, reason = [*tokens, *chunk.tokens], [*log_probs, *chunk.log_probs], chunk.finish_reason
    return tokens, log_probs, reason


# --- ScriptedGenerator


async def test_a_scripted_reply_comes_whole_with_its_stop():
    generator = ScriptedGenerator(lambda tokens, rng: [9, 9, 9, 9, 9, 9])
    tokens, log_probs, reason = await collect(generator, request())
    assert (tokens, reason) == ([9] * 6 + [0], "stop")
    # −0.1·(1 + (2 + 9) mod 7) for the first token at position 2
    assert log_probs[0] == pytest.approx(-0.5)
    assert generator.outputs == [(request(), tokens, log_probs)]


async def test_a_scripted_reply_is_cut_at_its_stop_or_at_the_limit():
    stopped = ScriptedGenerator(lambda tokens, rng: [9, 0, 9])
    assert (await collect(stopped, request()))[0] == [9, 0]
    long = ScriptedGenerator(lambda tokens, rng: [9] * 99)
    tokens, _, reason = await collect(long, request())
    assert (len(tokens), reason) == (8, "length")


async def test_scripted_engines_fail_as_real_ones_do():
    generator = ScriptedGenerator(lambda tokens, rng: [9], fails=lambda asked: asked.seed == 7)
    with pytest.raises(EngineFault):
        await collect(generator, request(seed=7))
    with pytest.raises(UserError):
        await collect(generator, request(tokens=[5] * 4090))
    await generator.close()
    with pytest.raises(EngineFault):
        await collect(generator, request())


# --- ScriptedLearner


def row(ids, trained, credit, log_probs=None) -> Row:
    return Row(ids=ids, trained=trained, credit=credit, log_probs=log_probs or [0.0] * len(ids), unit="u", group="g")


async def test_a_fresh_learner_is_uniform_and_generator_and_learner_agree_exactly():
    learner = ScriptedLearner([0, 7, 8, 9])
    tokens, log_probs, _ = await collect(learner.generator, request())
    assert log_probs == [math.log(0.25)] * len(tokens)
    played = row([5, 6, *tokens], [False, False] + [True] * len(tokens), [0.0, 0.0] + [0.1] * len(tokens))
    await learner.forward_backward([played], SUPERVISED)
    await learner.optim_step(1.0)
    tokens, log_probs, _ = await collect(learner.generator, request(seed=3))
    again = row([5, 6, *tokens], [False, False] + [True] * len(tokens), [0.0] * (2 + len(tokens)))
    [recomputed] = await learner.log_probs([again])
    assert recomputed == [0.0, 0.0, *log_probs]
    assert log_probs[0] != math.log(0.25)
    assert (await learner.log_probs([again], reference=True))[0][2] == math.log(0.25)


async def test_the_first_update_is_the_gradient_worked_by_hand():
    learner = ScriptedLearner([0, 7], order=1)
    # One trained token, 7 after 5, credit 0.5, uniform: loss = −0.5·ln ½; d/dlogits = −0.5·(onehot − p) = (0.25, −0.25)
    report = await learner.forward_backward([row([5, 7], [False, True], [0.0, 0.5])], SUPERVISED)
    assert report.loss == pytest.approx(0.5 * math.log(2))
    assert report.log_probs == [[0.0, math.log(0.5)]]
    assert report.metrics == {"nll": pytest.approx(math.log(2))}
    optim = await learner.optim_step(2.0)
    assert optim.grad_norm == pytest.approx(0.25 * math.sqrt(2))
    assert learner.table[(5,)].tolist() == pytest.approx([-0.5, 0.5])
    assert (optim.policy_version, learner.policy_version) == (1, 1)
    # Momentum ½: a second step without a gradient still moves by half of the first.
    await learner.optim_step(2.0)
    assert learner.table[(5,)].tolist() == pytest.approx([-0.75, 0.75])


async def test_saved_and_loaded_learners_go_on_alike(tmp_path):
    one, two = ScriptedLearner([0, 7, 8]), ScriptedLearner([0, 7, 8])
    step = row([5, 7, 8, 0], [False, True, True, True], [0.0, 0.3, -0.2, 0.1], [0.0, -1.1, -1.1, -1.1])
    await one.forward_backward([step], PG_TV)
    await one.optim_step(3.0)
    await one.save(tmp_path)
    await two.load(tmp_path)
    for learner in (one, two):
        await learner.forward_backward([step], PG_TV)
        await learner.optim_step(3.0)
    assert {s: t.tolist() for s, t in one.table.items()} == {s: t.tolist() for s, t in two.table.items()}
    assert one.policy_version == two.policy_version == 2


async def test_a_learner_refuses_what_it_cannot_do():
    learner = ScriptedLearner([0, 7])
    with pytest.raises(UserError, match="cannot produce token 9"):
        await learner.forward_backward([row([5, 9], [False, True], [0.0, 1.0])], SUPERVISED)
    with pytest.raises(UserError, match="no loss 'gspo'"):
        await learner.forward_backward([row([5, 7], [False, True], [0.0, 1.0])], SimpleNamespace(type="gspo"))


# --- CharFormat


def test_the_char_format_is_append_only_and_reads_back():
    chars = CharFormat()
    call = Message(role="assistant", tool_calls=(ToolCall(id="call_0", name="look", arguments='{"k": 1}'),))
    ids = chars.reply(call, [])
    assert chars.parse(ids, []) == (call, None)
    answer = Message(role="assistant", content="a<0>b")
    assert chars.parse(chars.reply(answer, []), []) == (answer, None)
    assert 0 not in chars.encode("a<0>\x00é")  # text never becomes a stop
    result = ToolResult(call_id="call_0", output="x")
    assert chars.decode(chars.results([result])) == "<4>x<0><3>"
    question = [Message(role="user", content="q")]
    whole = [*question, call, Message(role="tool", content="x", tool_call_id="call_0")]
    assert chars.prompt(whole, []) == chars.prompt(question, []) + ids + chars.results([result])


@pytest.mark.parametrize("text", ["!", "! {}", "!look {", "!look [1]"])
def test_the_char_format_says_what_is_malformed(text):
    chars = CharFormat()
    message, problem = chars.parse([*chars.encode(text), 0], [])
    assert problem
    assert message.content == text
    assert not message.tool_calls


# --- the rest


async def test_a_chat_model_plays_a_list_or_a_function():
    listed = ScriptedChatModel(["a", Message(role="assistant", content="b")])
    assert [(await listed.reply([], [])).content for _ in range(2)] == ["a", "b"]
    echo = ScriptedChatModel(lambda messages: messages[-1].content or "")
    assert (await echo.reply(ITEM.messages, [])).content == "q"
    assert echo.seen == [list(ITEM.messages)]


def test_a_fake_clock_moves_only_when_told():
    clock = FakeClock(100.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (102.5, 2.5)


async def test_scripted_tools_answer_mistakes():
    session = await ScriptedTools({"half": lambda arguments, item: str(arguments["n"] // 2)}).open(ITEM, "trace_1")
    good = await session.call(ToolCall(id="c", name="half", arguments='{"n": 4}'))
    assert (good.output, good.is_error) == ("2", False)
    missing = await session.call(ToolCall(id="c", name="nope", arguments="{}"))
    assert (missing.output, missing.is_error) == ("error: there is no tool 'nope'", True)


# --- check_tool, check_grader


class Tool:
    def __init__(self, call, **spec):
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        self.spec = ToolSpec(**{"name": "half", "description": "Half of n", "parameters": schema, **spec})
        self._call = call
        self.turn = nullcontext()

    async def call(self, arguments, context):
        return self._call(arguments)


async def test_a_tool_without_a_turn_is_told_so():
    tool = Tool(lambda arguments: "")
    del tool.turn
    with pytest.raises(AssertionError, match="no `turn`"):
        await check_tool(tool, {"n": 4})


async def test_a_good_tool_passes():
    await check_tool(Tool(lambda arguments: str(arguments["n"] // 2)), {"n": 4})


@pytest.mark.parametrize(
    ("tool", "arguments", "problem"),
    [
        (Tool(lambda a: 2), {"n": 4}, "returned int; expected str"),
        (Tool(lambda a: str(a["n"] / 0)), {"n": 4}, "raised ZeroDivisionError"),
        (Tool(lambda a: int("x")), {"n": 4}, "give arguments that work"),
        (Tool(lambda a: ""), {"n": "four"}, "do not fit the schema: 'four' is not of type 'integer'"),
        (Tool(lambda a: "", name="my tool"), {}, "expected 1 to 64 letters"),
        (Tool(lambda a: "", description=" "), {}, "no description"),
        (Tool(lambda a: "", parameters={"type": "string"}), {}, "of type object with `properties`"),
        (Tool(lambda a: "", parameters={"type": "object", "properties": 3}), {}, "not a JSON Schema"),
    ],
)
async def test_a_bad_tool_is_told_why(tool, arguments, problem):
    with pytest.raises(AssertionError, match=problem):
        await check_tool(tool, arguments)


async def test_a_good_grader_passes():
    await check_grader(ScriptedGrader(lambda sample, item: len(sample.output_text) / 1e6), ITEM)


COUNTER = itertools.count()


def _raise(error: Exception):
    raise error


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda sample, item: float("nan"), "expected a finite number"),
        (lambda sample, item: _raise(KeyError("x")), "grade raised KeyError"),
        (lambda sample, item: Grade(value=None, reason="r", traceback="Traceback…"), "the grader's code raised"),
        (lambda sample, item: next(COUNTER), "two grades of the same sample differ"),
    ],
)
async def test_a_bad_grader_is_told_why(function, problem):
    with pytest.raises(AssertionError, match=problem):
        await check_grader(ScriptedGrader(function), ITEM)
