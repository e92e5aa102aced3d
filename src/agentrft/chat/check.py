"""What is checked when a model is loaded, before any token is generated.

Two questions: can the model's own chat template be used (`usable_template`), and does the chosen format keep its
promises with this tokenizer (`check_format`)? Published templates fail the first for known reasons: they rewrite
earlier turns, drop the stop token, ignore tools, or write calls in another family's grammar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from agentrft.chat import calls, template
from agentrft.chat.template import PROBE_QUESTION, PROBE_TOOL, ShippedTemplate
from agentrft.chat.tokens import Tokenizer, encode_pieces
from agentrft.errors import UserError
from agentrft.protocols import ChatFormat
from agentrft.types import Message, ToolCall, ToolResult, ToolSpec

_TOOL = ToolSpec(**PROBE_TOOL["function"])
_CALL = Message(
    role="assistant", tool_calls=(ToolCall(id="call_0", name="look", arguments=calls.dump({"place": "here"})),)
)
_QUESTION = Message(role="user", content=PROBE_QUESTION)


class StoppingFormat(ChatFormat, Protocol):
    """A format that names the control token which ends its replies."""

    stop: str


def usable_template(tokenizer: Tokenizer, plain: StoppingFormat) -> tuple[ShippedTemplate | None, str]:
    """The model's own template if it can be trained on with `plain`'s grammar, and a note that says so or why not."""
    if not tokenizer.template:
        return None, "bundled wording: the model ships no chat template"
    shipped = ShippedTemplate(tokenizer, plain.stop)
    try:
        why = _template_fault(tokenizer, shipped, plain)
    except Exception as error:  # a template is a program by its author and raises what it likes
        why = f"its chat template fails: {calls.one_line(str(error))}"
    if why is not None:
        return None, f"bundled wording: {why}"
    return shipped, "the model's own chat template"


def _template_fault(tokenizer: Tokenizer, shipped: ShippedTemplate, plain: StoppingFormat) -> str | None:
    head = tokenizer.render(template.probe(1)[:1], [PROBE_TOOL], opened=True)
    once = tokenizer.render(template.probe(1), [PROBE_TOOL], opened=True)
    twice = tokenizer.render([*template.probe(1), *template.probe(1)[1:]], [PROBE_TOOL], opened=True)
    answered = tokenizer.render([*template.probe(1)[:1], {"role": "assistant", "content": "Here."}], [], opened=False)
    if _TOOL.name not in head:
        return "its chat template does not show tools"
    if not once.startswith(head) or not twice.startswith(once):
        return "its chat template rewrites earlier turns, so a prompt is not a prefix of what follows it"
    if not answered.rstrip().endswith(plain.stop):
        return f"its chat template does not end a reply with {plain.stop}, so stopping would not be trained"
    if shipped.after([Message(role="tool", content="x")]) is None:
        return "its chat template does not show one tool result as it is"
    if encode_pieces(tokenizer, shipped.head([_QUESTION], [_TOOL])) != tokenizer.encode_trusted(head):
        return "its chat template relies on control tokens that swallow white space"
    reply = once[len(head) : once.rfind(plain.stop, 0, once.index("\ue000")) + len(plain.stop)]
    read, malformed = plain.parse(tokenizer.encode_trusted(reply), [_TOOL])
    if malformed or read.tool_calls != _CALL.tool_calls:
        return f"its chat template writes calls in another way than the {plain.name} format"
    shipped.head([Message(role="system", content="Be brief."), _QUESTION], [_TOOL])
    return None


def check_format(fmt: ChatFormat, tokenizer: Tokenizer) -> None:
    """Raise UserError unless `fmt` is append-only, reads back what it writes, stops once and cannot be forged."""
    results = [ToolResult(call_id="call_0", output="It is at 7.")]
    answer = Message(role="assistant", content="At 7.")
    start = [Message(role="system", content="Be brief."), _QUESTION]
    called = [*start, _CALL, Message(role="tool", content="It is at 7.", tool_call_id="call_0")]
    stream = fmt.prompt(start, [_TOOL]) + fmt.reply(_CALL, [_TOOL]) + fmt.results(results)
    _require(stream == fmt.prompt(called, [_TOOL]), "a prompt is not a prefix of the conversation that continues it")
    for message in (_CALL, answer):
        ids = fmt.reply(message, [_TOOL])
        stops = [id_ in fmt.stop_ids for id_ in ids]
        _require(stops == [False] * (len(ids) - 1) + [True], "a reply does not end with exactly one stop token")
        _require(fmt.parse(ids, [_TOOL]) == (message, None), f"{tokenizer.decode(ids)!r} is not read back as written")
    forged = [ToolResult(call_id="call_0", output=fmt.decode(fmt.prompt(called, [_TOOL])))]
    _require(
        _count(fmt, fmt.results(forged)) == _count(fmt, fmt.results(results)), "a tool result can forge the stop token"
    )


def _count(fmt: ChatFormat, ids: list[int]) -> int:
    return sum(id_ in fmt.stop_ids for id_ in ids)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UserError(
            f"this model's tokenizer cannot be used for training: {otherwise}; next step: choose another "
            "`agent.format`, or another model",
            param="model",
            code="format_unsafe",
        )


def build_checked(make: Callable[..., Any], tokenizer: Tokenizer) -> Any:
    """`make(tokenizer, template, note)` with the model's own template if usable, checked."""
    shipped, note = usable_template(tokenizer, make(tokenizer))
    fmt = make(tokenizer, shipped, note)
    check_format(fmt, tokenizer)
    return fmt
