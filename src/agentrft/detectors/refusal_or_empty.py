"""No answer, or a refusal, where the item's successful episodes answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.view import View, World, reference_of

_SHORT = 700
_SORRY = (
    r"(i['’]?m\s+(really\s+|very\s+|so\s+)?sorry|sorry|unfortunately|i\s+apologi[sz]e[^.]{0,40}|"
    r"es\s+tut\s+mir\s+leid|(je\s+suis\s+)?désolée?|lo\s+siento|desculpe|sinto\s+muito|mi\s+dispiace|извините|к\s+сожалению)"
    r"[,.]?\s+((but|aber|mais|pero|mas|ma|но)\s+)?"
)
_CANNOT = (
    r"as\s+an?\s+(ai|artificial\s+intelligence|(large\s+)?language)\b|i['’]?\s?a?m\s+(just\s+|only\s+)?an?\s+(ai|language)\b",
    r"(i|we)\s+(do(n['’]t|\s+not)\s+have\s+(access|the\s+ability)|must\s+(decline|refuse)|decline\s+to|refuse\s+to)\b",
    r"((i|we)\s+(can(\s?not|['’]t)|won['’]t|am\s+unable\s+to|am\s+not\s+able\s+to)|i['’]m\s+(unable|not\s+able)\s+to)\s+"
    r"(help|assist|comply|provide|answer|fulfil|complete|perform|do\s+(that|this|it)|access|process|support|generate|share|"
    r"give|discuss|continue|respond|execute|carry|fulfill|proceed|engage|make\s+that)\b|my\s+(guidelines|programming)\b",
    r"ich\s+kann\s+((das|dies|ihnen|dir|diese\w*|dabei)\s+)?(leider\s+)?(nicht|keine)|als\s+ki\b|dabei\s+kann\s+ich",
    r"je\s+ne\s+(peux|suis)\s+pas|en\s+tant\s+qu['’]ia",
    r"no\s+puedo\s+(ayudar|responder|hacer|proporcionar|completar|realizar)|como\s+(modelo|ia)\b",
    r"não\s+posso\s+(ajudar|responder|fornecer|fazer)|non\s+(posso|sono\s+in\s+grado)|я\s+не\s+(могу|умею)",
    r"(很?抱歉|对不起|對不起)[^。]{0,12}(无法|無法|不能)|我(无法|無法|不能)(回答|提供|帮助|协助|完成)",
    r"申し訳(ありません|ございません)[^。]{0,20}(できません|お答えできません|いたしかねます)",
    r"(죄송합니다|죄송하지만)[^.]{0,30}(수\s*없|못)",
)
_REFUSES = re.compile(rf"\W{{0,3}}({_SORRY})?({'|'.join(_CANNOT)})", re.IGNORECASE)


def find(world: World) -> Iterator[Finding]:
    """One finding for empty answers, one for refusals."""
    hits = [hit for view in world.views if (hit := _hit(world, view)) is not None]
    for way, evidence in by_key(hits).items():
        yield Finding(
            kind=Kind.REFUSAL_OR_EMPTY,
            title={"empty": "empty replies", "refusal": "refusals"}[way],
            owner=Owner.PROMPT,
            description={"empty": "Replies without a word and without a call.", "refusal": "The agent declines."}[way],
            evidence=evidence,
            proposal="Say in the prompt what the agent may do, that it has tools for it, and how an answer looks.",
            target={"way": way},
        )


def refuses(text: str) -> bool:
    """Whether a text, in one of several languages, begins with declining to do what was asked."""
    return len(text) <= _SHORT and bool(_REFUSES.match(text.strip()))


def _hit(world: World, view: View) -> tuple[str, Evidence] | None:
    for number, turn in enumerate(view.episode.turns):
        is_last = number == len(view.episode.turns) - 1
        if turn.malformed is not None and not (turn.reply.content or "").strip() and not turn.reply.tool_calls:
            return "empty", view.whole("an empty reply", turn=number)
        if is_last and view.answered:
            return _of_answer(world, view, number)
    return None


def _of_answer(world: World, view: View, number: int) -> tuple[str, Evidence] | None:
    """Declining, or saying nothing, can be right: where the reference or other successes do so too."""
    passes = world.passes(view.item_id, but=view)
    gold = reference_of(view.seen.item.fields)
    if not view.answer:
        is_right = any(not one.answer for one in passes) or view.passed is True
        return None if is_right else ("empty", view.whole("an empty answer", turn=number))
    if refuses(view.answer):
        is_right = any(refuses(one.answer) for one in passes) or any(map(refuses, gold)) or view.passed is True
        return None if is_right else ("refusal", view.whole(f"declines: {clip(view.answer)!r}", turn=number))
    return None
