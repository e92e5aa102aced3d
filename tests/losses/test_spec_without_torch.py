import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from agentrft.losses import LossSpec, PolicyGradientLoss, SupervisedLoss

SPEC = TypeAdapter(LossSpec)


def test_the_type_chooses_the_spec():
    assert SPEC.validate_python({"type": "pg_tv", "mask_delta": 0.1}) == PolicyGradientLoss(mask_delta=0.1)
    assert SPEC.validate_python({"type": "supervised"}) == SupervisedLoss()


@pytest.mark.parametrize(
    "document",
    [
        {"type": "ppo"},
        {"type": "pg_tv", "clip": 0.2},
        {"type": "pg_tv", "mask_delta": 0.0},
        {"type": "pg_tv", "weight_cap": 0.5},
        {"type": "supervised", "mask_delta": 0.2},
    ],
)
def test_what_cannot_take_effect_is_refused(document):
    with pytest.raises(ValidationError):
        SPEC.validate_python(document)


def test_specs_do_not_import_torch():
    program = "import sys, agentrft.losses, agentrft.losses.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
