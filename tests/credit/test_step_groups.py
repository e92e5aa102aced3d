from agentrft.credit import METHODS

step_groups = METHODS["step_groups"]


def test_step_groups_by_hand(group):
    # Group mean 1/2, so trajectory parts are ±1/2. At state b, members 0 and 2 meet: returns 1 and 0, one peer each,
    # shrinkage 1/(1 + 3), so ω · 1/4 · (1 − 0) = 1/4 and −1/4. State a is where they began; c and d have no peers.
    view = group([1.0, 1.0, 0.0, 0.0], ["ab", "ac", "ab", "ad"])
    credited = step_groups([view], omega=1.0, gamma=1.0)
    assert credited.credit_I_G_K == [[[0.5, 0.75], [0.5, 0.5], [-0.5, -0.75], [-0.5, -0.5]]]
    assert credited.parts_I_G_K[0][0] == [{"trajectory": 0.5, "step": 0.0}, {"trajectory": 0.5, "step": 0.25}]
    assert credited.basis_I_G == [[0.5, 0.5, -0.5, -0.5]]
    assert credited.notes == ()


def test_discounting_makes_a_detour_cost(group):
    # Both solve it from b, member 1 by way of c. Returns from b: 1, and 0.5 · 1. One peer: 1/4 · (1 − 0.5) = 0.125.
    # Member 2 only makes the group's rewards differ.
    view = group([1.0, 1.0, 0.0], ["ab", "abc", "a"])
    parts = step_groups([view], omega=1.0, gamma=0.5).parts_I_G_K[0]
    assert [parts[0][1]["step"], parts[1][1]["step"], parts[1][2]["step"]] == [0.125, -0.125, 0.0]


def test_omega_weighs_the_step_term(group):
    view = group([1.0, 0.0], ["ab", "ab"])
    # ω = 2: 2 · 1/4 · 1
    assert step_groups([view], omega=2.0, gamma=1.0).parts_I_G_K[0][0][1]["step"] == 0.5


def test_a_second_visit_is_compared_with_others_first_visits_never_with_its_own(group):
    # Member 0 is twice at b. Returns of member 0 from its turns (γ = 0.5): 0.25, 0.5, 1; of member 1 from b: 0.
    view = group([1.0, 0.0], ["abb", "ab"])
    parts = step_groups([view], omega=1.0, gamma=0.5).parts_I_G_K[0]
    assert [part["step"] for part in parts[0]] == [0.0, 0.125, 0.25]
    # Member 1's only peer is member 0 at its first visit: 1/4 · (0 − 0.5)
    assert parts[1][1]["step"] == -0.125


def test_coming_back_to_the_start_gets_no_step_term(group):
    view = group([1.0, 0.0], ["aba", "aba"])
    parts = step_groups([view], omega=1.0, gamma=1.0).parts_I_G_K[0]
    assert [part["step"] for part in parts[0]] == [0.0, 0.25, 0.0]


def test_below_a_fifth_of_the_later_turns_it_is_off_and_says_so(group):
    # One meeting (2 turns at b) among 11 later turns: 2/11 < 0.2
    few = group([1.0, 0.0, 0.5], ["abcdef", "abghi", "ajk"])
    off = step_groups([few], omega=1.0, gamma=1.0)
    assert off.credit_I_G_K == [[[0.5] * 6, [-0.5] * 5, [0.0] * 3]]
    assert off.notes == (
        "step groups are off in this step: 2 of 11 turns after the first met a state that another member met, "
        "expected 20 %",
    )
    # 2 of 10 is a fifth: on
    enough = group([1.0, 0.0, 0.5], ["abcdef", "abghi", "aj"])
    assert step_groups([enough], omega=1.0, gamma=1.0).notes == ()


def test_coverage_is_of_all_groups_of_the_step_together(group):
    lonely, crowded = group([1.0, 0.0], ["abc", "ade"]), group([1.0, 0.0], ["ab", "ab"])
    assert step_groups([lonely, crowded], omega=1.0, gamma=1.0).notes == ()


def test_single_turns_are_off_and_say_so(group):
    credited = step_groups([group([1.0, 0.0], ["a", "a"])], omega=1.0, gamma=1.0)
    assert credited.credit_I_G_K == [[[0.5], [-0.5]]]
    assert "no episode has a second turn" in credited.notes[0]


def test_equal_keys_in_other_groups_are_no_peers(group):
    one, two = group([1.0, 0.0], ["ab", "ac"]), group([0.0, 1.0], ["ab", "ab"])
    credited = step_groups([one, two], omega=1.0, gamma=1.0)
    assert credited.parts_I_G_K[0][0][1]["step"] == 0.0
    assert credited.parts_I_G_K[1][1][1]["step"] == 0.25


def test_unknown_states_have_no_peers(group):
    credited = step_groups([group([1.0, 0.0], ["a??b", "a??b"])], omega=1.0, gamma=1.0)
    assert [part["step"] for part in credited.parts_I_G_K[0][0]] == [0.0, 0.0, 0.0, 0.25]


def test_where_all_earned_alike_the_discount_makes_no_difference_by_itself(group):
    credited = step_groups([group([1.0, None, 1.0], ["ab", "ab", "abc"])], omega=1.0, gamma=0.5)
    assert credited.credit_I_G_K == [[[0.0] * 2, [0.0] * 2, [0.0] * 3]]
