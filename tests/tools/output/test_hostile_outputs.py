"""Hostile outputs: within the limit, encodable, free of template tokens, no hang, never a crash."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrft.tools.output import KeptOutputs, OutputSpec, clean, shape_output
from agentrft.tools.output.document import compact
from agentrft.tools.output.table import Rows, as_table
from agentrft.tools.steer import MAX_STRUCTURED_TOKENS, CallError, ErrorKind, steer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

hostile = settings(
    max_examples=5_000,
    deadline=5_000,  # ms of wall time for each input, on a machine that may be busy: a hang is a failure
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)

TOKENS = ("<|im_start|>", "<|im_end|>", "[INST]")

pieces = st.sampled_from(
    [
        *"\n\r\t\x00\x1b\x9b\x85\u200b\u200d\u202e\ufe0f\ufeff\ud800\u2028",
        "\x1b[0m",
        "\x1b]0;",
        "<|im_",
        "start|>",
        "<|im_start|>",
        "\\u003c|im_end|>",
        "[INST]",
        "日本",
        "👩\u200d👧",
        "word ",
        "x" * 300,
        '"',
        ",",
        "|",
        "{",
        "[",
        "out_0",
    ]
)
texts = st.lists(pieces, max_size=20).map("".join) | st.text(max_size=60)
numbers = st.floats() | st.integers() | st.sampled_from([10**400, -0.0])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
cells = st.none() | st.booleans() | numbers | texts | st.lists(texts, max_size=2)
rows = st.lists(st.fixed_dictionaries({"a": cells, "b,\n": texts}, optional={"c|": cells}), min_size=5, max_size=9)
documents = st.sampled_from(
    [
        "[" * 20_000,
        "[" * 900 + "]" * 900,
        '{"a":' * 900 + "1" + "}" * 900,
        "[" + "9" * 5_000 + "]",
        '{"a": 1, "a": 2}',
        "[1e999, NaN]",
    ]
)
as_json = st.builds(json.dumps, values | rows, ensure_ascii=st.booleans())
outputs = texts | as_json | documents | st.binary(max_size=300) | texts.map(lambda text: text.encode(errors="replace"))

paths = st.lists(st.sampled_from(["*", "a", "b,\n", "0", "", "orders"]), min_size=1, max_size=4).map(
    lambda parts: [part or "*" for part in parts]
)
specs = st.builds(
    lambda **fields: OutputSpec.model_validate({key: value for key, value in fields.items() if value is not None}),
    strip=st.booleans(),
    project=st.none()
    | st.builds(
        lambda keep, drop: {"keep": keep, "drop": drop, "drop_empty": True},
        st.lists(paths, max_size=2),
        st.lists(paths, max_size=2),
    ),
    table=st.sampled_from([None, "csv", "markdown"]),
    max_tokens=st.sampled_from([None, 16, 60, 400]),
    hint=st.sampled_from([None, "Narrow with q=…."]),
    offload=st.booleans(),
) | st.builds(
    lambda keep, table: OutputSpec.model_validate({"keep": keep, "table": table, "marker": "full"}),
    st.sampled_from(["head", "tail", "head+tail"]),
    st.sampled_from([None, "csv"]),
)


class Limits:
    output_tokens = 250
    count_tokens = staticmethod(len)

    def __init__(self, transport_bytes: int) -> None:
        self.transport_bytes = transport_bytes


@hostile
@given(outputs, specs, st.sampled_from([0, 7, 500, 1_000_000]))
def test_an_output_is_shaped(raw, spec, transport_bytes):
    limits, kept = Limits(transport_bytes), KeptOutputs()
    shaped = shape_output(raw, spec, limits, template_tokens=TOKENS, kept=kept)
    limit = spec.max_tokens or limits.output_tokens
    # The shortest marker, for a million characters, has 29.
    assert len(shaped.text) <= max(limit, 29)
    shaped.text.encode()
    assert shaped.steps[0].bytes_in == shaped.bytes_in
    assert all(one.bytes_out == two.bytes_in for one, two in zip(shaped.steps, shaped.steps[1:], strict=False))
    assert shaped.steps[-1].bytes_out == len(shaped.text.encode())
    if spec.strip:
        assert not any(token in shaped.text for token in TOKENS)
        assert clean(shaped.text)[0] == shaped.text
    if shaped.kept_id is not None:
        _read_to_the_end(kept, shaped.kept_id)


def _read_to_the_end(kept: KeptOutputs, output_id: str) -> None:
    start = 1
    for _ in range(2_000):
        page = kept.read(output_id, start, limit=400, count=len)
        assert len(page) <= 400
        if page.endswith("The end.]"):
            return
        before, start = start, int(page.rpartition("start ")[2].rstrip(".]"))
        assert start > before
    raise AssertionError("no end")


@hostile
@given(rows)
def test_a_table_is_read_back_row_by_row(found):
    body = as_table(Rows(rows=found), "csv")
    if body is None:
        return
    lines = list(csv.reader(io.StringIO(body.text[body.header_chars :], newline="")))
    assert len(lines) == len(found) == body.text[body.header_chars :].count("\n") + 1
    columns = next(csv.reader([body.text[: body.header_chars].splitlines()[-1]]))
    if "a" in columns:
        for row, cells in zip(found, lines, strict=True):
            value, cell = row["a"], cells[columns.index("a")]
            written = "" if value is None else value if isinstance(value, str) else compact(value)
            assert cell == written or json.loads(cell) == value


def test_a_million_rows_take_seconds():
    raw = "[" + ",".join(f'{{"a":{n}}}' for n in range(1_000_000)) + "]"
    start = time.process_time()
    text = shape_output(raw, OutputSpec(table="csv", page_rows=40), Limits(50_000_000)).text
    assert time.process_time() - start < 20
    assert text.startswith("1000000 rows × 1 column\na\n0\n1\n")


@hostile
@given(texts, texts, texts, st.sampled_from(ErrorKind))
def test_an_error_is_one_short_line(what, expected, try_next, kind):
    error = CallError(kind=kind, what=what, where=expected, expected=expected, received=what, try_next=try_next)
    line = steer(error, template_tokens=TOKENS)
    assert len(line) <= len("error: ") + 241
    structured = steer(error, "structured", count_tokens=len, template_tokens=TOKENS)
    assert len(structured) <= MAX_STRUCTURED_TOKENS
    for text in (line, structured):
        text.encode()
        assert text.splitlines() == [text]
        assert not any(token in text for token in TOKENS)
