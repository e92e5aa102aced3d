"""filenav: the tools, the grader's numbers, its hacks, and how good the best policy is."""

from __future__ import annotations

import re
import statistics
from typing import Any

import pytest

ROW: dict[str, Any] = {
    "id": "row-1",
    "messages": [{"role": "user", "content": "What is the port of billing in staging?"}],
    "service": "billing",
    "key": "port",
    "file": "/apps/billing/staging.conf",
    "answer": "4200",
    "envs": ["prod", "staging", "dev"],
    "tree": {
        "/apps/billing": {"port": "3100 4200 5300", "owner": "ana ben mia"},
        "/core/billing-old": {"port": "3101 4201 5301", "owner": "ana ben mia"},
        "/core/mail": {"port": "3102 4200 5302"},
    },
}
GREP_KEY = ("grep", {"text": "billing.port", "path": "/"})
GREP_SERVICE = ("grep", {"text": "billing", "path": "/"})
CAT = ("cat", {"path": "/apps/billing/staging.conf"})


@pytest.fixture(scope="module")
def filenav(open_example: Any) -> Any:
    return open_example("filenav")


@pytest.mark.parametrize(
    ("name", "arguments", "output"),
    [
        ("ls", {"path": "/"}, "apps/  core/"),
        ("ls", {"path": "/core"}, "billing-old/  mail/"),
        ("ls", {"path": "/core/"}, "billing-old/  mail/"),
        ("ls", {"path": "/apps/billing"}, "dev.conf  prod.conf  staging.conf"),
        ("ls", {"path": "/app"}, "error: no folder /app"),
        ("ls", {"path": "/apps/billing/dev.conf"}, "error: no folder /apps/billing/dev.conf"),
        ("ls", {"path": "x" * 99}, "error: no folder " + "x" * 40),
        ("cat", {"path": "/apps/billing/staging.conf"}, "billing.port = 4200\nbilling.owner = ben"),
        ("cat", {"path": "/apps"}, "error: no file /apps"),
        ("grep", {"text": "4200", "path": "/core"}, "/core/mail/staging.conf: mail.port = 4200"),
        ("grep", {"text": "zzz", "path": "/"}, "no match"),
        ("grep", {"text": "", "path": "/"}, "error: TEXT is empty"),
        ("grep", {"text": "port", "path": "/nowhere"}, "error: no path /nowhere"),
        (
            "grep",
            {"text": "billing", "path": "/"},
            "/apps/billing/prod.conf: billing.port = 3100\n/apps/billing/prod.conf: billing.owner = ana\n"
            "/apps/billing/staging.conf: billing.port = 4200\n[9 more]",
        ),
        ("grep", {"text": "owner", "path": "/apps/billing/dev.conf"}, "/apps/billing/dev.conf: billing.owner = mia"),
    ],
)
async def test_tools(filenav: Any, name: str, arguments: dict[str, str], output: str) -> None:
    assert await filenav.outputs(ROW, [(name, arguments)]) == [output]


async def test_the_stated_rewards(filenav: Any) -> None:
    ls = ("ls", {"path": "/"})
    # quality × (1 − 0.15 × (calls − 1))
    assert await filenav.score(ROW, [GREP_KEY], "4200") == 1.0
    assert await filenav.score(ROW, [GREP_SERVICE, CAT], "4200") == pytest.approx(0.85)
    assert await filenav.score(ROW, [ls, ls, ls, CAT], "4200") == pytest.approx(0.55)
    assert await filenav.score(ROW, [CAT], "4200") == 1.0
    assert await filenav.score(ROW, [CAT], "Answer: 4200") == 1.0  # formats that keep the prefix
    assert await filenav.score(ROW, [CAT], "3100") == pytest.approx(0.2)
    assert await filenav.score(ROW, [ls, CAT], "3100") == pytest.approx(0.2 * 0.85)
    assert await filenav.score(ROW, [("cat", {"path": "/apps/billing/prod.conf"})], "3100") == 0.05
    assert await filenav.score(ROW, [ls], "4200") == 0.0
    assert await filenav.score(ROW, [], "4200") == 0.0
    assert await filenav.score(ROW, [CAT], "") == 0.0
    assert await filenav.score(ROW, [CAT], None) == 0.0


async def test_malformed_replies_count_as_calls(filenav: Any) -> None:
    sample = await filenav.play(ROW, [CAT], "4200")
    assert filenav.grade(sample | {"n_calls": 3}, ROW) == pytest.approx(0.7)
    assert filenav.grade({key: value for key, value in sample.items() if key != "n_calls"}, ROW) == 1.0
    assert filenav.grade(sample | {"n_calls": 40}, ROW) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "3100 4200 5300",
        "4200, or 3100",
        "4200\n4200",
        "3100 Answer: 4200",
        "4200 Answer: 3100",
        "Answer: Answer: 4200",
        "port = 4200",
        "billing.port = 4200",
        "not 4200",
        "42００",  # full-width digits
        "4200.0",
        "04200",
    ],
)
async def test_only_the_value_itself_is_right(filenav: Any, answer: str) -> None:
    assert await filenav.score(ROW, [GREP_KEY], answer) == pytest.approx(0.2)


async def test_a_line_that_the_model_wrote_is_no_evidence(filenav: Any) -> None:
    line = "billing.port = 4200"
    for name, arguments in [
        ("ls", {"path": line}),
        ("ls", {"path": f"x\n{line}\n"}),
        ("cat", {"path": line}),
        ("cat", {"path": f"\n{line}"}),
        ("grep", {"text": line, "path": "/core"}),
        ("grep", {"text": "x", "path": f"\n{line}"}),
        ("find", {"path": line}),
        ("cat", {"file": line}),
    ]:
        assert await filenav.score(ROW, [(name, arguments)], "4200") == 0.0, arguments
    sample = await filenav.play(ROW, [], "4200")
    for message in (
        {"role": "assistant", "content": f"\n{line}\n"},
        {"role": "user", "content": line},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "cat", "arguments": line}}]},
    ):
        assert filenav.grade(sample | {"messages": [*sample["messages"], message]}, ROW) == 0.0


async def test_the_same_value_elsewhere_is_no_evidence(filenav: Any) -> None:
    # /core/mail/staging.conf has port 4200 too, and billing-old is not billing
    assert await filenav.score(ROW, [("cat", {"path": "/core/mail/staging.conf"})], "4200") == 0.0
    assert await filenav.score(ROW, [("cat", {"path": "/core/billing-old/prod.conf"})], "3101") == 0.0


async def test_grepping_everything_shows_three_lines(filenav: Any) -> None:
    scores = []
    for row in filenav.splits["test"]:
        calls = [("grep", {"text": text, "path": "/"}) for text in ("=", ".", "e", "o")]
        scores.append(await filenav.score(row, calls, row["answer"]))
    assert statistics.mean(scores) < 0.1  # with the right answer given away; the right line is seen in under a fifth


@pytest.mark.parametrize("split", ["train", "validation", "test", "new_names", "harder"])
async def test_the_best_policy_needs_one_call_and_earns_one(filenav: Any, split: str) -> None:
    for row in filenav.splits[split]:
        calls = [("grep", {"text": f"{row['service']}.{row['key']}", "path": "/"})]
        (output,) = await filenav.outputs(row, calls)
        env = row["file"].rsplit("/", 1)[1]
        answer = re.search(rf"/{env}: .* = (\S+)$", output, re.MULTILINE)
        assert answer is not None
        assert await filenav.score(row, calls, answer[1]) == 1.0


def test_new_names_are_new_and_harder_is_deeper(filenav: Any) -> None:
    def names(split: str) -> set[str]:
        return {folder.rsplit("/", 1)[1] for row in filenav.splits[split] for folder in row["tree"]}

    assert not names("new_names") & (names("train") | names("validation") | names("test"))
    assert all(folder.count("/") == 2 for row in filenav.splits["train"] for folder in row["tree"])
    assert all(folder.count("/") == 3 for row in filenav.splits["harder"] for folder in row["tree"])
    for row in filenav.splits["harder"]:
        assert sum(f"/{row['service']}-" in folder for folder in row["tree"]) == 1


def test_demonstrated_strategies(filenav: Any) -> None:
    first = []
    for demonstration in filenav.rows("demonstrations"):
        functions = [call["function"] for m in demonstration["messages"] for call in m.get("tool_calls") or []]
        first.append(functions[0]["name"])
        greps = [function for function in functions if function["name"] == "grep"]
        assert not any("." in call["arguments"] for call in greps)  # service and key at once: never shown
        assert functions[-1]["name"] == "cat"
        assert len(functions) >= 2  # answering after one call: never shown
    assert first.count("grep") == 18  # of 128: 14 %
    assert set(first) == {"ls", "grep"}
