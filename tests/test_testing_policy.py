"""The scripted learner's presets are those of `agentrft.losses`, in value, gradient and metrics."""

import random
from collections import defaultdict

import pytest
import torch

from agentrft.errors import UserError
from agentrft.losses import (
    LOSSES,
    CispoLoss,
    DapoLoss,
    DrGrpoLoss,
    GrpoLoss,
    GspoLoss,
    LossBatch,
    MaxrlLoss,
    PolicyGradientLoss,
    ReinforcePpLoss,
    SapoLoss,
)
from agentrft.testing.policy import TOKEN_WISE, policy_pull

PRESETS = [
    PolicyGradientLoss(),
    MaxrlLoss(),
    CispoLoss(weight_cap=1.2),
    GrpoLoss(),
    DapoLoss(),
    DrGrpoLoss(),
    ReinforcePpLoss(),
    SapoLoss(),
]


@pytest.mark.parametrize("loss", PRESETS, ids=lambda loss: loss.type)
def test_a_preset_is_the_torch_one(loss):
    draw = random.Random(3)
    policy = [draw.uniform(-2.5, -0.05) for _ in range(60)]
    generator = [min(-0.01, one + draw.gauss(0.0, 0.4)) for one in policy]
    credit = [draw.choice([-1.0, -0.3, 0.0, 0.4, 1.0]) for _ in policy]
    leaf = torch.tensor(policy, dtype=torch.float64, requires_grad=True)
    result = LOSSES[loss.type](
        LossBatch(
            log_probs=leaf,
            generator_log_probs=torch.tensor(generator, dtype=torch.float64),
            credit=torch.tensor(credit, dtype=torch.float64),
            row=torch.zeros(60, dtype=torch.int64),
        ),
        loss,
    )
    result.loss.backward()
    sums = defaultdict(float)
    pulls = [policy_pull(loss, *token, sums) for token in zip(policy, generator, credit, strict=True)]
    assert [-pull for pull in pulls] == pytest.approx(leaf.grad.tolist(), abs=1e-12)
    assert sums.pop("loss") == pytest.approx(result.loss.item())
    torch_sums = {name: float(value) for name, value in result.metrics.items() if name != "tokens"}
    assert dict(sums) == pytest.approx(torch_sums, rel=1e-6)
    assert sums["masked_frac"] > 0 or loss.type in ("cispo", "sapo")


def test_what_it_cannot_is_refused():
    assert {loss.type for loss in PRESETS} == set(TOKEN_WISE)
    with pytest.raises(UserError, match="no loss 'gspo'"):
        policy_pull(GspoLoss(), -1.0, -1.0, 1.0, {})
    corrected = GrpoLoss.model_validate({"correction": {"type": "token_mask"}})
    with pytest.raises(UserError, match="no correction 'token_mask'"):
        policy_pull(corrected, -1.0, -1.0, 1.0, {})
