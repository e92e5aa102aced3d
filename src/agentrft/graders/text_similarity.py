"""`text_similarity`: how alike two texts are, from 0 to 1.

`fuzzy_match` is rapidfuzz's `fuzz.ratio` / 100: one minus the normalised insertion-deletion distance (2 × matching
characters / all characters), symmetric, sensitive to case. OpenAI says "rapidfuzz" without naming the function; we take
the one that a short quotation of the reference, or a long text around it, cannot satisfy.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator
from rapidfuzz import fuzz

from agentrft.graders.sample import sample_object
from agentrft.graders.spec import Spec, TemplateText
from agentrft.graders.template import Missing, Reference, Template
from agentrft.types import Grade, Item, Sample

_NOT_HERE = frozenset({"bleu", "gleu", "meteor", "cosine", "rouge_l", *(f"rouge_{n}" for n in range(1, 6))})


class TextSimilaritySpec(Spec):
    type: Literal["text_similarity"]
    input: TemplateText
    reference: TemplateText
    evaluation_metric: Literal["fuzzy_match"]

    @field_validator("evaluation_metric", mode="before")
    @classmethod
    def _say_which_metrics_there_are(cls, value: Any) -> Any:
        if isinstance(value, str) and value in _NOT_HERE:
            raise ValueError(f"{value!r} is OpenAI's but not available in this version, expected 'fuzzy_match'")
        return value

    def references(self) -> tuple[Reference, ...]:
        return Template(self.input).references + Template(self.reference).references


class TextSimilarityGrader:
    """Similarity of the filled `input` and `reference`, 0 to 1."""

    def __init__(self, spec: TextSimilaritySpec) -> None:
        self._input = Template(spec.input)
        self._reference = Template(spec.reference)

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        seen = sample_object(sample)
        try:
            text, reference = self._input.fill(seen, item.fields), self._reference.fill(seen, item.fields)
        except Missing as missing:
            return Grade(value=None, reason=str(missing))
        return Grade(value=fuzz.ratio(text, reference) / 100)

    async def close(self) -> None:
        """Nothing to stop."""
