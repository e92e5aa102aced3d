import dataclasses
from pathlib import Path

from agentrft.credit import CREDIT
from agentrft.rollout import Limits
from agentrft.train.metrics import METRICS
from agentrft.types import StopReason

DOCS = Path(__file__).parents[2] / "docs"


def test_every_metric_is_documented_with_its_unit_and_meaning():
    page = (DOCS / "training.md").read_text()
    rows = [
        f"| `{name}` | {metric.unit} | {metric.meaning.replace('|', chr(92) + '|')} |"
        for name, metric in METRICS.items()
    ]
    assert [row for row in rows if row not in page] == []


def test_every_stop_reason_limit_and_credit_is_documented():
    rollout, training = (DOCS / "rollout.md").read_text(), (DOCS / "training.md").read_text()
    assert [reason for reason in StopReason if f"`{reason.value}`" not in rollout] == []
    assert [limit.name for limit in dataclasses.fields(Limits) if f"`{limit.name}`" not in rollout] == []
    assert [name for name in CREDIT if f"`{name}`" not in training] == []
