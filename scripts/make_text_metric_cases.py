"""Write tests/graders/text_metric_cases.json: what the named libraries say about pairs of texts.

Run it in an environment of its own with the versions that OpenAI's grader sandbox lists, and sacrebleu as a second
opinion on BLEU:

    pip install nltk==3.9.1 rouge-score==0.1.2 rapidfuzz==3.10.1 sacrebleu==2.6.0
    python scripts/make_text_metric_cases.py

ASCII texts are split by the libraries' own tokenisers. For the others the words stand beside the pair, written by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

from nltk.tokenize import wordpunct_tokenize
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.translate.gleu_score import sentence_gleu
from nltk.translate.meteor_score import single_meteor_score
from rapidfuzz import fuzz
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

TARGET = Path(__file__).parents[1] / "tests" / "graders" / "text_metric_cases.json"

Pair = tuple[str, str, list[str] | None, list[str] | None]
"""Text, reference, and the words of each where no library splits them as we do."""

PAIRS: dict[str, Pair] = {
    "equal": ("The capital of France is Paris.", "The capital of France is Paris.", None, None),
    "one word": ("Paris", "Paris", None, None),
    "one word of several": ("Paris", "The capital of France is Paris.", None, None),
    "nothing in common": ("blue whales sing", "The capital of France is Paris.", None, None),
    "one change": (
        "The quick brown fox jumps over the lazy cat.",
        "The quick brown fox jumps over the lazy dog.",
        None,
        None,
    ),
    "other order": (
        "he read the book because he was interested",
        "he was interested because he read the book",
        None,
        None,
    ),
    "stems": ("the cats were running quickly", "the cat runs quick", None, None),
    "synonyms": ("the car drove rapidly", "the automobile drove quickly", None, None),
    "case": ("THE CAT SAT ON THE MAT", "the cat sat on the mat", None, None),
    "repeated word": ("the the the the the the the", "the cat is on the mat", None, None),
    "too long": ("It is 42, I think, or 43; one of the two.", "It is 42.", None, None),
    "too short": ("It is 42.", "It is 42, I think, or 43; one of the two.", None, None),
    "punctuation and figures": ("total: $1,234.50 (incl. 19% VAT)", "Total = $1234.50, incl. VAT", None, None),
    "code": (
        "def add(first_term, other):\n    return first_term + other\n",
        "def add(a, b):\n    return a + b",
        None,
        None,
    ),
    "translations": (
        "It is a guide to action which ensures that the military always obeys the commands of the party",
        "It is a guide to action that ensures that the military will forever heed Party commands",
        None,
        None,
    ),
    "accents": (
        "le café est très bon",
        "Le café était bon",
        ["le", "café", "est", "très", "bon"],
        ["Le", "café", "était", "bon"],
    ),
    "chinese": (
        "我住在北京大学",
        "我在北京上大学",
        ["我", "住", "在", "北", "京", "大", "学"],
        ["我", "在", "北", "京", "上", "大", "学"],
    ),
    "russian": (
        "москва столица россии",
        "столица россии москва",
        ["москва", "столица", "россии"],
        ["столица", "россии", "москва"],
    ),
}


class NoSynonyms:
    """Stands in for WordNet, which nltk 3.9.1 cannot do without."""

    def synsets(self, word: str) -> tuple[()]:
        return ()


class Given:
    """rouge-score's tokeniser, where the words are known."""

    def __init__(self, words: dict[str, list[str]]) -> None:
        self.words = words

    def tokenize(self, text: str) -> list[str]:
        return [word.lower() for word in self.words[text]]


def expected(pair: Pair) -> dict[str, float]:
    """Every metric of one pair."""
    text, reference, given, reference_given = pair
    words, reference_words = given or wordpunct_tokenize(text), reference_given or wordpunct_tokenize(reference)
    bleu = sentence_bleu([reference_words], words, smoothing_function=SmoothingFunction().method3, auto_reweigh=True)
    second = BLEU(tokenize="none", effective_order=True, smooth_method="exp")
    other = second.sentence_score(" ".join(words), [" ".join(reference_words)]).score / 100
    assert abs(bleu - other) < 1e-9, f"nltk says {bleu}, sacrebleu {other}"
    kinds = {**{f"rouge_{n}": f"rouge{n}" for n in range(1, 6)}, "rouge_l": "rougeL"}
    tokenizer = Given({text: words, reference: reference_words}) if given else None
    rouge = RougeScorer(list(kinds.values()), tokenizer=tokenizer).score(reference, text)
    return {
        "fuzzy_match": fuzz.ratio(text, reference) / 100,
        "bleu": float(bleu),
        "gleu": float(sentence_gleu([reference_words], words)),
        "meteor": float(single_meteor_score(reference_words, words, wordnet=NoSynonyms())),
        **{ours: float(rouge[theirs].fmeasure) for ours, theirs in kinds.items()},
    }


def main() -> None:
    cases = [
        {"name": name, "text": pair[0], "reference": pair[1], "expected": expected(pair)}
        for name, pair in PAIRS.items()
    ]
    TARGET.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(cases)} pairs, {sum(len(case['expected']) for case in cases)} values in {TARGET}")


if __name__ == "__main__":
    main()
