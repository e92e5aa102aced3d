import re
from pathlib import Path

from agentrft.losses import LOSSES, spec

PAGE = (Path(__file__).parents[2] / "docs" / "losses.md").read_text()
WORDS = {word for span in re.findall(r"`([^`\n]+)`", PAGE) for word in re.findall(r"\w+", span)}
DOCUMENTS = [
    value
    for value in vars(spec).values()
    if isinstance(value, type) and issubclass(value, spec.BaseModel) and not value.__name__.startswith("_")
]


def test_every_loss_correction_and_option_is_on_the_page():
    internal = {"SupervisedLoss", "KtoStepLoss"}
    fields = {name for one in DOCUMENTS if one.__name__ not in internal for name in one.model_fields}
    corrections = {"token_truncation", "token_mask", "sequence_truncation", "sequence_mask", "sequence_band"}
    assert sorted((fields | corrections | set(LOSSES)) - {"supervised"} - WORDS) == []
    assert len(DOCUMENTS) > 15
