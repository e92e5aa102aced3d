"""The whole pipeline: order, log of sizes, and defaults that leave ordinary text as it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agentrft.tools.output import KeptOutputs, OutputFlag, OutputSpec, ProjectSpec, shape_output
from agentrft.types import OutputStep

DEFAULTS = OutputSpec()


def fourths(text: str) -> int:
    """A token per 4 characters."""
    return -(-len(text) // 4)


@dataclass(frozen=True)
class Limits:
    output_tokens: int = 1024
    transport_bytes: int = 1_000_000
    count_tokens: Callable[[str], int] = fourths


def seen(raw: str | bytes, spec: OutputSpec = DEFAULTS, limits: Limits | None = None) -> str:
    return shape_output(raw, spec, limits or Limits()).text


def test_defaults_leave_ordinary_text_and_json_as_they_are() -> None:
    for raw in ("plain\n  text\n", '{"a": [1,  2], "a": null}', "", "\n\n", "Grüße 👩\u200d👧"):
        shaped = shape_output(raw, DEFAULTS, Limits())
        size = len(raw.encode())
        assert shaped.text == raw
        assert shaped.steps == (
            OutputStep(name="decode", bytes_in=size, bytes_out=size),
            OutputStep(name="truncate", bytes_in=size, bytes_out=size),
        )
        assert (shaped.bytes_in, shaped.flags, shaped.kept_id) == (size, (), None)


def test_defaults_cut_as_they_always_did() -> None:
    # The literals of the quickstart's format: 100 characters, 50 allowed, the marker takes 25.
    assert seen("x" * 100, limits=Limits(output_tokens=50, count_tokens=len)) == "x" * 25 + "\n[75 characters left out]"
    assert seen("x" * 100, limits=Limits(output_tokens=3, count_tokens=len)) == "[100 characters left out]"
    # 16 tokens are 64 characters, the marker takes 27 of them.
    assert seen("y" * 5000, limits=Limits(output_tokens=16)) == "y" * 37 + "\n[4963 characters left out]"
    # 8 characters of 2 bytes: 10 bytes carry 5 of them.
    limits = Limits(output_tokens=100, transport_bytes=10, count_tokens=len)
    assert seen("é" * 8, limits=limits) == "é" * 5 + "\n[3 characters left out]"
    assert seen("a\ud800b") == "a?b"


def test_both_ends_of_what_is_beyond_the_transport() -> None:
    spec = OutputSpec(keep="head+tail", max_tokens=60)
    shaped = shape_output("a" * 100 + "b" * 100, spec, Limits(transport_bytes=20, count_tokens=len))
    # The transport carried 10 from each end, and what stands for the rest fits.
    assert shaped.text == "a" * 10 + "\n[180 characters left out]\n" + "b" * 10
    assert shaped.flags == (OutputFlag.OVER_TRANSPORT,)
    spec = OutputSpec(keep="head+tail", max_tokens=36)
    # Less fits: the marker with its line breaks takes 27 of 36 characters, 9 of 200 are shown.
    text = seen("a" * 100 + "b" * 100, spec, Limits(transport_bytes=20, count_tokens=len))
    assert text == "aaaaa\n[191 characters left out]\nbbbb"
    tail = seen("a" * 100 + "b" * 100, OutputSpec(keep="tail"), Limits(transport_bytes=20, count_tokens=len))
    assert tail == "[180 characters left out]\n" + "b" * 20


def test_every_step_in_order_with_its_sizes() -> None:
    rows = [{"id": n, "name": f"n{n}", "secret": "x", "note": None} for n in range(8)]
    raw = json.dumps({"orders": rows})
    spec = OutputSpec(project=ProjectSpec(drop=("orders.*.secret",)), table="csv", page_rows=5)
    shaped = shape_output(raw, spec, Limits())
    assert shaped.text == (
        "orders: 8 rows × 2 columns, 1 column dropped (always empty): note\nid,name\n0,n0\n1,n1\n2,n2\n3,n3\n4,n4\n"
        "[showing 25 of 29 tokens: rows 1-5 of 8. Narrow the call.]"
    )
    # Raw: 8 rows of 52, 7 × 2 between, 14 around. Projected: 8 × 32, 7 between, 13 around. The table: a line of 65, one
    # of 7, 8 rows of 4, 9 line breaks, and × has a second byte. The page leaves out 3 rows of 4 and 2 line breaks.
    sizes = [(step.name, step.bytes_in, step.bytes_out) for step in shaped.steps]
    assert sizes == [
        ("decode", 444, 444),
        ("project", 444, 276),
        ("table", 276, 114),
        ("page", 114, 100),
        ("truncate", 100, 158),
    ]
    assert shaped.flags == (OutputFlag.PAGED,)


def test_json_that_no_setting_changes_stays_as_the_tool_wrote_it() -> None:
    raw = '{ "a" : 1,\n "b": [ ] }'
    assert seen(raw, OutputSpec(project=ProjectSpec(drop=("c",)), table="csv", page_rows=50)) == raw
    assert seen("no json", OutputSpec(table="csv")) == "no json"
    assert shape_output("no json", OutputSpec(table="csv"), Limits()).flags == (OutputFlag.NOT_JSON,)


def test_a_page_of_a_list_is_json_lines_and_a_page_of_text_is_lines() -> None:
    spec = OutputSpec(page_rows=2, hint="Narrow with limit=N.")
    assert seen("[1, [2], {}]", spec) == (
        "3 rows, one JSON value a line\n1\n[2]\n[showing 9 of 10 tokens: rows 1-2 of 3. Narrow with limit=N.]"
    )
    assert seen("a\nb\nc\nd\n", spec) == "a\nb\n[showing 1 of 2 tokens: lines 1-2 of 4. Narrow with limit=N.]"
    assert seen("[1, 2]", spec) == "[1, 2]"


def test_escapes_in_json_hide_no_template_token_and_no_line_break() -> None:
    token = ("<|im_start|>",)
    rows = ",".join(['{"a": "\\u003c|im_start|>x\\u202e\\ud800", "b": "1\\u00852"}'] * 5)
    shaped = shape_output(f"[{rows}]", OutputSpec(table="csv"), Limits(), template_tokens=token)
    # NEL is a line break, so that the cell is written as JSON: a row stays a line.
    assert shaped.text == "5 rows × 2 columns\na,b\n" + "\n".join(['x?,"""1\\n2"""'] * 5)
    kept = OutputSpec(project=ProjectSpec(keep=("*.a",)))
    assert "im_start" not in shape_output(f"[{rows}]", kept, Limits(), template_tokens=token).text
    # Cells side by side can spell one too.
    text = json.dumps([{"p": "<A", "q": "B>"}] * 5)
    assert "<A,B>" not in shape_output(text, OutputSpec(table="csv"), Limits(), template_tokens=("<A,B>",)).text


def test_without_stripping_only_what_no_tokenizer_can_encode_goes() -> None:
    raw = '["\\ud800", "\\u202e", "\x1b[0m"]'
    assert seen(raw, OutputSpec(strip=False)) == raw
    rows = json.dumps([{"a": "\ud800\u202e"}] * 5)
    assert seen(rows, OutputSpec(strip=False, table="csv")).endswith("\na\n" + "\n".join(["?\u202e"] * 5))


def test_a_limit_too_small_for_the_full_marker_gets_the_short_one() -> None:
    text = seen("word " * 200, OutputSpec(max_tokens=16, hint="x" * 60))
    assert text.endswith(" characters left out]")
    assert fourths(text) <= 16


def test_what_is_left_out_is_kept_and_read_to_its_end() -> None:
    rows = json.dumps([{"id": n, "text": "x" * (n % 50)} for n in range(300)])
    spec, limits, kept = OutputSpec(table="csv", offload=True, max_tokens=200), Limits(output_tokens=200), KeptOutputs()
    shaped = shape_output(rows, spec, limits, kept=kept, call_number=7)
    assert shaped.kept_id == "out_7"
    assert fourths(shaped.text) <= 200
    pages, text = [shaped.text], shaped.text
    while "The end." not in text:
        *body, marker = text.splitlines()
        assert body[:2] == ["300 rows × 2 columns", "id,text"]
        start = int(marker.split("start ")[1].rstrip(".]"))
        text = kept.read("out_7", start, limit=200, count=fourths)
        assert fourths(text) <= 200
        pages.append(text)
    assert pages[-1].splitlines()[-1].endswith("-300 of 300. The end.]")
    shown = [line.split(",")[0] for page in pages for line in page.splitlines()[2:-1]]
    assert shown == [str(n) for n in range(300)]


def test_output_that_is_shown_whole_is_not_kept() -> None:
    kept = KeptOutputs()
    shaped = shape_output("short", OutputSpec(offload=True), Limits(), kept=kept, call_number=1)
    assert (shaped.text, shaped.kept_id, kept.bytes_held) == ("short", None, 0)


def test_offloading_needs_the_episodes_store() -> None:
    with pytest.raises(ValueError, match="pass the episode's KeptOutputs"):
        shape_output("x", OutputSpec(offload=True), Limits())


def test_a_short_output_takes_microseconds_and_a_megabyte_milliseconds() -> None:
    limits, raw = Limits(), "src/main.py:12: def run() -> None:"
    best = min(_seconds(lambda: [shape_output(raw, DEFAULTS, limits) for _ in range(1000)]) for _ in range(5))
    assert best / 1000 < 20e-6
    text = "some words\n" * 90_000
    assert min(_seconds(lambda: seen(text, OutputSpec(marker="full"))) for _ in range(3)) < 0.5


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
