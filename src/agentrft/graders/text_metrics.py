"""How alike two texts are: OpenAI's text metrics without the one that needs a model, as functions that return 0 to 1.

OpenAI names the metrics, not their settings. Its sandbox carries nltk, rouge-score and rapidfuzz, so their definitions
are the ones here, and `scripts/make_text_metric_cases.py` has the expected values made by the versions it lists.

BLEU, GLEU and METEOR are nltk's own functions. ROUGE's n-grams are counted here, and its longest common subsequence is
rapidfuzz's: rouge-score 0.1.2 has no wheel, drops every letter outside a to z, and fills a table of n × m Python
integers.

Words are runs of letters, digits and `_`, or of punctuation, as nltk's `wordpunct_tokenize` finds them; ROUGE takes
lower-case letters and digits only, as rouge-score does. Ours differ beyond ASCII: letters of all scripts count, and a
Chinese or Japanese character is a word of its own. A script without spaces, such as Thai, is not split further. Nothing
is normalised: an accent in one code point and in two are different.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections import Counter
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any, Protocol

from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq

from agentrft.types import GradeError

MAX_WORDS = 20_000
"""Of one text. The slowest metric, METEOR of that many distinct words, takes 0.6 s."""
MAX_PAIRS = 40_000**2
"""Characters of one text times those of the other, for `fuzzy_match`: about a second at most."""
MAX_STEM_CHARS = 40
"""Longer words are compared whole: the stemmer's time grows with the square of a word's length."""

NEEDS_NLTK = frozenset({"bleu", "gleu", "meteor"})

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]+")
_ROUGE_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


class NoScore(ValueError):
    """These two texts cannot be compared; `str()` is the reason."""

    kind = GradeError.TRUNCATED_OBSERVATION
    """Too large, all of them here."""


class Synonyms(Protocol):
    """What METEOR asks of WordNet."""

    def synsets(self, word: str) -> Collection[Any]: ...


class _NoSynonyms:
    def synsets(self, word: str) -> Collection[Any]:
        return ()


def fuzzy_match(text: str, reference: str) -> float:
    """rapidfuzz's `fuzz.ratio` / 100: 2 × matching characters / all characters. Symmetric; two empty texts get 1.

    Raises NoScore above `MAX_PAIRS`: the time grows with the product of the lengths.
    """
    if len(text) * len(reference) > MAX_PAIRS:
        raise NoScore(f"got texts of {len(text)} and {len(reference)} characters, expected a product ≤ {MAX_PAIRS}")
    return fuzz.ratio(text, reference) / 100


def bleu(text: str, reference: str) -> float:
    """nltk's `sentence_bleu` of 1- to 4-grams: precision of `text`, less where it is shorter than the reference.

    Smoothed with `method3` (NIST: the k-th order without a match counts 1 / 2^k matches); orders longer than `text` are
    left out (`auto_reweigh`). So defined it is also sacrebleu's sentence BLEU / 100 over the same words. Not symmetric,
    sensitive to case; 1 for equal texts, 0 without a common word or where a text has none.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    words, reference_words = _words(_WORD, text), _words(_WORD, reference)
    if not words or not reference_words:
        return 0.0
    smooth = SmoothingFunction().method3
    return _bounded(sentence_bleu([reference_words], words, smoothing_function=smooth, auto_reweigh=True))


def gleu(text: str, reference: str) -> float:
    """nltk's `sentence_gleu`: common 1- to 4-grams / those of the text that has more of them.

    Symmetric, sensitive to case; 1 for equal texts, 0 where a text has no words.
    """
    from nltk.translate.gleu_score import sentence_gleu

    return _bounded(sentence_gleu([_words(_WORD, reference)], _words(_WORD, text)))


def meteor(text: str, reference: str, synonyms: Synonyms | None = None) -> float:
    """nltk's `single_meteor_score` (α 0.9, β 3, γ 0.5): words matched exactly, then by Porter stem, then by synonym.

    Without `synonyms` the third stage finds nothing, so paraphrases score lower than with WordNet, which OpenAI's
    sandbox has. Recall weighs nine times precision, so it is not symmetric; case does not matter. Equal texts of m
    words get 1 − 0.5 / m³: a single right word gets 0.5. 0 where a text has no words.
    """
    from nltk.translate.meteor_score import single_meteor_score

    words, reference_words = _words(_WORD, text), _words(_WORD, reference)
    stemmer: Any = _Stemmer()
    wordnet: Any = synonyms or _NoSynonyms()
    return _bounded(single_meteor_score(reference_words, words, stemmer=stemmer, wordnet=wordnet))


def rouge_n(text: str, reference: str, n: int) -> float:
    """rouge-score's `rougeN` F-measure, no stemmer: 2 × common n-grams / n-grams of both texts.

    Symmetric, case does not matter. 0 where a text has fewer than n words, equal texts included.
    """
    grams, reference_grams = (Counter(_grams(_words(_ROUGE_WORD, side.lower()), n)) for side in (text, reference))
    return 2 * (grams & reference_grams).total() / max(grams.total() + reference_grams.total(), 1)


def rouge_l(text: str, reference: str) -> float:
    """rouge-score's `rougeL` F-measure, no stemmer: 2 × longest common subsequence of words / words of both texts.

    Symmetric, case does not matter; 1 for equal texts, 0 where a text has no words.
    """
    words, reference_words = (_words(_ROUGE_WORD, side.lower()) for side in (text, reference))
    # Numbers, because rapidfuzz compares words by hash, and those of strings differ from one process to the next.
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words + reference_words))}
    common = LCSseq.similarity([numbers[word] for word in words], [numbers[word] for word in reference_words])
    return 2 * common / max(len(words) + len(reference_words), 1)


TEXT_METRICS: dict[str, Callable[[str, str], float]] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    "meteor": meteor,
    **{f"rouge_{n}": functools.partial(rouge_n, n=n) for n in range(1, 6)},
    "rouge_l": rouge_l,
}
"""By OpenAI's name: (text, reference) → 0 to 1. Each raises NoScore for a text of more than `MAX_WORDS` words."""


def wordnet() -> Synonyms:
    """WordNet as installed among nltk's data; raises LookupError or OSError where it is absent or incomplete."""
    reader = importlib.import_module("nltk.corpus").wordnet
    reader.ensure_loaded()
    return reader


class _Stemmer:
    def stem(self, word: str) -> str:
        return word if len(word) > MAX_STEM_CHARS else _stem(word)


@functools.lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    return _porter().stem(word)


@functools.cache
def _porter() -> Any:
    return importlib.import_module("nltk.stem.porter").PorterStemmer()


def _words(pattern: re.Pattern[str], text: str) -> list[str]:
    """The first `MAX_WORDS` words and no more are ever held; raises NoScore when there are more."""
    words = [match[0] for match in islice(pattern.finditer(text), MAX_WORDS + 1)]
    if len(words) > MAX_WORDS:
        raise NoScore(f"got a text of more than {MAX_WORDS} words, expected {MAX_WORDS} at most")
    return words


def _grams(words: list[str], n: int) -> zip[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(n)), strict=False)


def _bounded(value: Any) -> float:
    """A float without what rounding adds beyond 1; nltk returns the integer 0 where nothing matches."""
    return min(float(value), 1.0)
