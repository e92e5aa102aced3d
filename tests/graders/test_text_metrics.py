"""The text metrics: values made by the named libraries, and texts that are made to break or to stall them."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrft.graders.text_metrics import MAX_PAIRS, MAX_WORDS, TEXT_METRICS, NoScore, meteor, wordnet

CASES = json.loads(Path(__file__).with_name("text_metric_cases.json").read_text(encoding="utf-8"))
"""Made by scripts/make_text_metric_cases.py."""
SYMMETRIC = sorted(TEXT_METRICS.keys() - {"bleu", "meteor"})
WORST_S = 5.0
"""Processor time that nothing below may need; idle, the slowest takes about half a second."""


@pytest.mark.parametrize("metric", TEXT_METRICS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_values_are_those_of_the_libraries(case, metric):
    assert TEXT_METRICS[metric](case["text"], case["reference"]) == pytest.approx(case["expected"][metric], abs=1e-12)


def test_there_are_enough_values():
    values = [case["expected"][metric] for case in CASES for metric in TEXT_METRICS]
    assert len(values) >= 30
    assert sum(0 < value < 1 for value in values) >= 30


@pytest.mark.parametrize(
    ("metric", "text", "reference", "value"),
    [
        # "The cat sat" / "the cat ran fast": 2 common words, 2 * 2 / (3 + 4); 1 common pair, 2 * 1 / (2 + 3)
        ("rouge_1", "The cat sat", "the cat ran fast", 4 / 7),
        ("rouge_2", "The cat sat", "the cat ran fast", 2 / 5),
        # the longest common subsequence of "a b c d" and "d a c" is "a c": 2 * 2 / (4 + 3)
        ("rouge_l", "a b c d", "d a c", 4 / 7),
        # 1-grams 2, 2-grams 1, 3-grams 0 in common; "a b c" has 3 + 2 + 1 = 6 in all, "a b d" too
        ("gleu", "a b c", "a b d", 3 / 6),
        # equal lengths, so no penalty; precisions 2/3, 1/2 and, smoothed, 1/2 / 1; no 4-grams in three words
        ("bleu", "a b c", "a b d", (2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3)),
        # precisions 1, for being shorter exp(1 - 4 / 2)
        ("bleu", "a b", "a b c d", 0.36787944117144233),
        # both words match in one chunk: P 1, R 2/4, F = PR / (0.9 P + 0.1 R) = 0.5 / 0.95, penalty 0.5 * (1/2)^3
        ("meteor", "a b", "a b c d", 0.5 / 0.95 * (1 - 0.0625)),
        # "runs" and "running" share their stem
        ("meteor", "runs", "running", 0.5),
        ("fuzzy_match", "abcd", "abcx", 0.75),
    ],
)
def test_values_worked_by_hand(metric, text, reference, value):
    assert TEXT_METRICS[metric](text, reference) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("text", "reference"), [("", ""), ("", "a b"), ("a b", ""), (" \n\t", "a b"), ("a b", " ")])
@pytest.mark.parametrize("metric", sorted(TEXT_METRICS.keys() - {"fuzzy_match"}))
def test_texts_without_words_get_nothing(metric, text, reference):
    assert TEXT_METRICS[metric](text, reference) == 0.0


def test_to_fuzzy_match_empty_texts_are_equal_and_a_space_is_a_character():
    assert TEXT_METRICS["fuzzy_match"]("", "") == 1.0
    assert TEXT_METRICS["fuzzy_match"]("", "a b") == 0.0
    assert TEXT_METRICS["fuzzy_match"](" ", "a b") == 0.5


@pytest.mark.parametrize("metric", [*(f"rouge_{n}" for n in range(1, 6)), "rouge_l"])
def test_rouge_sees_letters_and_figures_only(metric):
    assert TEXT_METRICS[metric]("...", "...") == 0.0
    assert TEXT_METRICS[metric]("a_b, C-d (e)! f", "A B c D e F") == 1.0


@given(text=st.text(max_size=30), reference=st.text(max_size=30))
def test_any_two_texts_get_a_number_from_0_to_1(text, reference):
    for metric in TEXT_METRICS:
        value = TEXT_METRICS[metric](text, reference)
        assert type(value) is float, metric
        assert 0.0 <= value <= 1.0, metric
    for metric in SYMMETRIC:
        assert TEXT_METRICS[metric](text, reference) == TEXT_METRICS[metric](reference, text), metric


@given(words=st.lists(st.sampled_from(["a", "running", "runs", "Ω", "北", ",", "7"]), min_size=1, max_size=12))
def test_equal_texts(words):
    text = " ".join(words)
    assert TEXT_METRICS["bleu"](text, text) == pytest.approx(1.0)
    assert TEXT_METRICS["gleu"](text, text) == 1.0
    m = len(words)
    assert TEXT_METRICS["meteor"](text, text) == pytest.approx(1 - 0.5 / m**3)


def _longest(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        previous = row
        row = [0]
        for j, y in enumerate(b):
            row.append(previous[j] + 1 if x == y else max(previous[j + 1], row[j]))
    return row[-1]


_LETTERS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=20)


@given(a=_LETTERS, b=_LETTERS)
def test_rouge_l_is_the_longest_common_subsequence(a, b):
    value = TEXT_METRICS["rouge_l"](" ".join(a), " ".join(b))
    assert value == pytest.approx(2 * _longest(a, b) / (len(a) + len(b)))


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("\ud800", "\ud800 a"),
        ("\x00\x00", "\x00"),
        ("a\u0301" * 50, "á" * 50),
        ("\u0300\u0327" * 1000, "a"),
        ("\u202eevil", "live\u202c"),
        ("😀 😀", "😀"),
        ("İ I ı ß ﬁ", "i̇ i ss fi"),
        ("²³ ½ Ⅷ", "23 1/2 8"),
        ("{{item.answer}}", "%s %n ${x}"),
        ("(" * 3000, ")" * 3000),
    ],
)
@pytest.mark.parametrize("metric", TEXT_METRICS)
def test_odd_texts_get_a_number(metric, text, reference):
    assert 0.0 <= TEXT_METRICS[metric](text, reference) <= 1.0


HUGE = {
    "one word": "x" * 1_000_000,
    "a word that stems slowly": "y" * 1_000_000,
    "words of one letter": "a b " * 250_000,
    "a mark after each letter": "a!" * 500_000,
    "spaces": " " * 1_000_000,
    "characters that are words": "北京" * 500_000,
    "combining marks": "\u0300\u0327" * 500_000,
}


@pytest.mark.parametrize("metric", TEXT_METRICS)
@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE)
def test_a_megabyte_gets_a_number_or_a_reason_soon(metric, text):
    started = time.process_time()
    for one, other in [(text, text), (text, "a short reference"), ("a short answer", text)]:
        try:
            assert 0.0 <= TEXT_METRICS[metric](one, other) <= 1.0
        except NoScore as why:
            assert "expected" in str(why)  # noqa: PT017 - either outcome is right, the time is what counts
    assert time.process_time() - started < WORST_S


@pytest.mark.parametrize("metric", sorted(TEXT_METRICS.keys() - {"fuzzy_match"}))
def test_as_many_words_as_are_read_take_no_longer(metric):
    ends = ("ing", "ational", "fulness", "s", "y" * 30)
    text = " ".join(f"left{k}{ends[k % 5]}" for k in range(MAX_WORDS))
    reference = " ".join(f"right{k}{ends[k % 5]}" for k in range(MAX_WORDS))
    started = time.process_time()
    assert TEXT_METRICS[metric](text, reference) == 0.0
    assert time.process_time() - started < WORST_S
    with pytest.raises(NoScore, match=f"more than {MAX_WORDS} words, expected {MAX_WORDS} at most"):
        TEXT_METRICS[metric](text + " more", "a")


def test_as_many_characters_as_are_compared_take_no_longer():
    side = int(MAX_PAIRS**0.5)
    text = "".join(map(chr, range(0x4E00, 0x4E00 + side // 4))) * 4
    started = time.process_time()
    assert TEXT_METRICS["fuzzy_match"](text, text[::-1]) < 0.9
    assert time.process_time() - started < WORST_S
    with pytest.raises(NoScore, match="got texts of 40001 and 40000 characters"):
        TEXT_METRICS["fuzzy_match"]("a" + "b" * side, "c" * side)


class _Lemma:
    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name


class _Synset:
    def __init__(self, *names: str) -> None:
        self._names = names

    def lemmas(self) -> list[_Lemma]:
        return [_Lemma(name) for name in self._names]


class _OneSynset:
    def synsets(self, word: str) -> list[_Synset]:
        return [_Synset("car", "auto", "motor_car")] if word in ("car", "auto") else []


def test_meteor_takes_synonyms_where_it_is_given_some():
    # "the" and "drove" match alone, P = R = 2/3, in 2 chunks of 2 matches: penalty 0.5 * 1
    assert meteor("the auto drove", "the car drove") == pytest.approx(2 / 3 * 0.5)
    # all three match, in one chunk of 3: penalty 0.5 / 27
    assert meteor("the auto drove", "the car drove", _OneSynset()) == pytest.approx(1 - 0.5 / 27)


def _write_wordnet(folder: Path) -> None:
    """A WordNet of one noun synset, in Princeton's format: a line of `data.noun` is found by its byte offset."""
    licence = "  1 WordNet 3.0 Copyright \n"
    kinds = ("noun", "verb", "adj", "adv")
    texts = {
        **dict.fromkeys([f"{part}.{kind}" for part in ("index", "data") for kind in kinds], ""),
        **dict.fromkeys([f"{kind}.exc" for kind in kinds], ""),
        "index.sense": "",
        "cntlist.rev": "",
        "lexnames": "".join(f"{k:02}\tnoun.kind{k}\t1\n" for k in range(45)),
        "data.noun": f"{licence}{len(licence):08} 06 n 02 car 0 auto 0 000 | a vehicle  \n",
        "index.noun": licence + "".join(f"{word} n 1 0 1 0 {len(licence):08}  \n" for word in ("auto", "car")),
    }
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRUSR | stat.S_IWUSR)  # nltk refuses what others may write


_WITH_SYNONYMS = """
import asyncio, sys
from pathlib import Path
import nltk
from agentrft.errors import UserError
from agentrft.graders import build_grader
from agentrft.types import Item, Sample
document = {"type": "text_similarity", "name": "near", "evaluation_metric": "meteor",
            "input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
nltk.data.path[:] = [sys.argv[1]]
try:
    grader = build_grader(document, Path())
except UserError as error:
    sys.exit(error.message)
item = Item(id="row-1", messages=(), fields={"answer": "the car drove"})
print(asyncio.run(grader.grade(Sample(output_text="the auto drove"), item, "trace_1")).value)
"""


def test_synonyms_come_from_the_wordnet_among_nltks_data_or_are_refused(tmp_path):
    _write_wordnet(tmp_path / "full" / "corpora" / "wordnet")
    _write_wordnet(tmp_path / "torn" / "corpora" / "wordnet")
    (tmp_path / "torn" / "corpora" / "wordnet" / "verb.exc").unlink()
    (tmp_path / "none").mkdir()

    def run(data: str) -> subprocess.CompletedProcess[str]:
        # In a process of its own: nltk keeps the WordNet it has once read.
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", _WITH_SYNONYMS, str(tmp_path / data)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = run("full")
    assert done.stdout.strip() == str(1 - 0.5 / 27), done.stderr
    for data in ("torn", "none"):
        done = run(data)
        assert done.returncode == 1
        assert "`meteor` needs WordNet, and nltk's data here has none that is complete" in done.stderr
        assert "Traceback" not in done.stderr


def test_wordnet_is_not_looked_for_unless_asked_for(monkeypatch):
    monkeypatch.setattr("nltk.data.path", [])
    assert TEXT_METRICS["meteor"]("the auto", "the car") > 0
    with pytest.raises(LookupError):
        wordnet()
