"""`text_similarity` as a grader: what its documents may say, and what it grades. `cosine`: `test_text_cosine.py`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from agentrft.errors import UserError
from agentrft.graders import build_grader, parse_grader
from agentrft.graders.text_similarity import MAX_CHARS, TextSimilarityGrader

METRICS = ["fuzzy_match", "bleu", "gleu", "meteor", *(f"rouge_{n}" for n in range(1, 6)), "rouge_l"]
NEAR = {"type": "text_similarity", "name": "near", "input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
ENDPOINT = {"base_url": "http://127.0.0.1:9/v1", "model": "embed"}
COSINE = {**NEAR, "evaluation_metric": "cosine", "embeddings": ENDPOINT}


def document_of(metric):
    """A document of the metric that needs no data from elsewhere."""
    return {**NEAR, "evaluation_metric": metric, **({"synonyms": False} if metric == "meteor" else {})}


@pytest.mark.parametrize("metric", METRICS)
async def test_every_metric_of_openais_grades(make_sample, make_item, metric):
    grader = build_grader(document_of(metric), Path())
    item = make_item(answer="the cat sat on the mat today")
    same = await grader.grade(make_sample("the cat sat on the mat today"), item, "t")
    near = await grader.grade(make_sample("the cat sat on the mat now"), item, "t")
    far = await grader.grade(make_sample("Ω"), item, "t")
    assert 1.0 >= same.value > near.value > far.value == 0.0
    await grader.close()


_NO_SECRETS = "got a URL that cannot be used, expected a URL such as https://api.openai.com/v1, without user, query"


@pytest.mark.parametrize(
    ("document", "start"),
    [
        ({**NEAR, "evaluation_metric": "rouge_6"}, "`grader.evaluation_metric`: Input should be 'fuzzy_match', 'bleu'"),
        ({**NEAR, "evaluation_metric": "BLEU"}, "`grader.evaluation_metric`: Input should be 'fuzzy_match', 'bleu'"),
        (NEAR, "`grader.evaluation_metric`: Field required"),
        ({**NEAR, "evaluation_metric": "cosine"}, "`grader`: `cosine` lacks `embeddings`, expected base_url and model"),
        (
            {**COSINE, "evaluation_metric": "bleu"},
            "`grader`: got `embeddings` with 'bleu', expected them with 'cosine' only",
        ),
        (
            {**NEAR, "evaluation_metric": "gleu", "synonyms": True},
            "`grader`: got `synonyms` with 'gleu', expected them with 'meteor' only",
        ),
        ({**COSINE, "embeddings": {**ENDPOINT, "key": "x"}}, "`grader.embeddings.key`: Extra inputs are not permitted"),
        ({**COSINE, "embeddings": {"base_url": "http://h/v1"}}, "`grader.embeddings.model`: Field required"),
        ({**COSINE, "embeddings": {**ENDPOINT, "timeout_s": 0}}, "`grader.embeddings.timeout_s`: Input should be"),
        *(
            ({**COSINE, "embeddings": {**ENDPOINT, "base_url": url}}, f"`grader.embeddings.base_url`: {_NO_SECRETS}")
            for url in ("", "localhost:80", "ftp://h", "http://", "http://u:hush@h", "http://h?key=hush", "http://h#x")
        ),
        ({**COSINE, "embeddings": {**ENDPOINT, "base_url": "http://[x"}}, "`grader.embeddings.base_url`: this is no"),
        (
            {**COSINE, "embeddings": {**ENDPOINT, "api_key_env": "sk-hush"}},
            "`grader.embeddings.api_key_env`: got no variable's name, expected one such as OPENAI_API_KEY",
        ),
    ],
)  # fmt: skip
def test_bad_documents(document, start):
    with pytest.raises(UserError) as caught:
        parse_grader(document)
    assert caught.value.message.startswith(start)
    assert len(caught.value.message) < 400
    assert "hush" not in caught.value.message


def test_documents_round_trip():
    for document in (
        COSINE,
        {**NEAR, "evaluation_metric": "meteor"},
        {**NEAR, "evaluation_metric": "meteor", "synonyms": False},
    ):
        spec = parse_grader(document)
        assert parse_grader(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize("metric", METRICS)
def test_without_nltk_some_metrics_say_what_to_install(monkeypatch, metric):
    monkeypatch.setitem(sys.modules, "nltk", None)  # as if it were not installed
    spec = parse_grader(document_of(metric))
    if metric not in ("bleu", "gleu", "meteor"):
        TextSimilarityGrader(spec)
        return
    with pytest.raises(UserError) as caught:
        TextSimilarityGrader(spec, param="method.reinforcement.grader")
    assert caught.value.message == (
        f"the metric {metric!r} needs nltk, which is not installed; next step: pip install 'agentrft[text]', or take "
        "fuzzy_match or a rouge metric"
    )
    assert caught.value.code == "missing_extra"
    assert caught.value.param == "method.reinforcement.grader.evaluation_metric"


@pytest.mark.parametrize("metric", [*METRICS, "cosine"])
async def test_a_text_of_more_than_a_megabyte_is_no_grade(make_sample, make_item, metric):
    document = COSINE if metric == "cosine" else document_of(metric)
    grader = build_grader(document, Path())
    started = time.process_time()
    grade = await grader.grade(make_sample("a " * (MAX_CHARS // 2) + "a"), make_item(answer="a"), "t")
    assert grade.reason == "grader 'near': got 1000001 characters of input, expected 1000000 at most"
    grade = await grader.grade(make_sample("a"), make_item(answer="a" * (MAX_CHARS + 1)), "t")
    assert grade.reason == "grader 'near': got 1000001 characters of reference, expected 1000000 at most"
    assert time.process_time() - started < 2


async def test_a_text_of_too_many_words_is_no_grade(make_sample, make_item):
    grader = build_grader({**NEAR, "evaluation_metric": "rouge_l"}, Path())
    grade = await grader.grade(make_sample("a " * 20_001), make_item(answer="a"), "t")
    assert grade.value is None
    assert grade.reason == "grader 'near': got a text of more than 20000 words, expected 20000 at most"
