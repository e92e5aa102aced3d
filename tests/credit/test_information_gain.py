import math

import pytest

from agentrft.credit import METHODS
from agentrft.errors import UserError

information_gain = METHODS["information_gain"]
LOW, MIDDLE, HIGH = math.log(0.1), math.log(0.3), math.log(0.5)


def test_a_turn_earns_what_it_adds(group):
    # Member 0: p 0.1 → 0.3 → 0.5, reward 1: turn rewards 0.2, 0.2, 0. Member 1: p stays 0.1, reward 0.
    # Returns of 0: 1.4, 1.2, 1; of 1: 0, 0, 0.
    view = group([1.0, 0.0], ["abc", "abc"], references_G=[[LOW, MIDDLE, HIGH], [LOW, LOW, LOW]])
    credited = information_gain([view], weight=1.0, form="gain")
    assert credited.credit_I_G_K[0][0] == pytest.approx([1.4, 1.2, 1.0])
    assert credited.credit_I_G_K[0][1] == pytest.approx([-1.4, -1.2, -1.0])
    assert credited.parts_I_G_K[0][0][0] == pytest.approx({"trajectory": 1.0, "shaping": 0.4})


def test_half_the_weight_is_half_the_gain(group):
    view = group([1.0, 0.0], ["abc", "abc"], references_G=[[LOW, MIDDLE, HIGH], [LOW, LOW, LOW]])
    assert information_gain([view], weight=0.5, form="gain").credit_I_G_K[0][0] == pytest.approx([1.2, 1.1, 1.0])


def test_one_turn_gains_at_most_half(group):
    view = group([1.0, 0.0], ["ab", "ab"], references_G=[[math.log(0.1), math.log(0.9)], [LOW, LOW]])
    assert information_gain([view], weight=1.0, form="gain").credit_I_G_K[0][0] == pytest.approx([1.5, 1.0])


def test_a_potential_is_a_baseline(group):
    # Gains 0.2, and −0.3 back at the end. Returns of 0: 1 − 0.1, 1 − 0.3; of 1: 0 − 0.1 both.
    view = group([1.0, 0.0], ["ab", "ab"], references_G=[[LOW, MIDDLE], [LOW, LOW]])
    credited = information_gain([view], weight=1.0, form="potential")
    assert credited.credit_I_G_K[0][0] == pytest.approx([0.9 + 0.1, 0.7 + 0.1])


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_missing_reference_is_refused(group, missing):
    view = group([1.0, 0.0], ["ab", "ab"], references_G=[[LOW, missing], [LOW, LOW]])
    with pytest.raises(UserError, match="turn 1 has no log-prob of the reference answer") as caught:
        information_gain([view], weight=1.0, form="gain")
    assert caught.value.code == "invalid_credit"


def test_members_without_a_grade_need_none(group):
    view = group([1.0, None, 0.0], ["a", "a", "a"], references_G=[[LOW], [None], [LOW]])
    assert information_gain([view], weight=1.0, form="gain").credit_I_G_K == [[[1.0], [0.0], [-1.0]]]
