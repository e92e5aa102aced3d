import pytest

from agentrft.credit import METHODS
from agentrft.errors import UserError

tree = METHODS["tree"]


def test_a_tree_by_hand(group):
    # Leaves 0 and 1 share turn p and branch after it, so they weigh 1/2 each; leaf 2 is a tree of its own.
    # p: V = 1/2, the rest 0: 1/2, in each of its two rows 1/4.
    # x: V = 1, the rest 0, sibling 0: 1, in its row 1/2.
    # y: V = 0, the rest (1/2 · 1 + 1 · 0) / (3/2) = 1/3: −1/3; sibling 1: 1/4 · (1/3 − 1) = −1/6; in its row the half.
    # q: V = 0, the rest 1/2: −1/2. r: the same; it has no siblings.
    view = group([1.0, 0.0, 0.0], ["??", "??", "??"], nodes_G=[["p", "x"], ["p", "y"], ["q", "r"]])
    credited = tree([view])
    assert credited.credit_I_G_K == [[[0.25, 0.5], pytest.approx([0.25, -0.25]), [-0.5, -0.5]]]
    assert credited.parts_I_G_K[0][1][1] == pytest.approx({"trajectory": -1 / 6, "step": -1 / 12})


def test_three_branches_at_one_fork_are_still_one_episode(group):
    # Of three leaves under p only two have a grade: each weighs 1/2. Rewards 1, 1 against 0.
    nodes = [["p", "x"], ["p", "y"], ["p", "z"], ["q"]]
    credited = tree([group([1.0, 1.0, None, 0.0], ["??", "??", "??", "?"], nodes_G=nodes)])
    # p: 1 − 0; x: V = 1, the rest 1/2 / (3/2) = 1/3, sibling 1: 2/3 − 1/4 · 2/3 = 1/2
    assert credited.credit_I_G_K == [[[0.5, pytest.approx(0.25)], [0.5, pytest.approx(0.25)], [0.0, 0.0], [-1.0]]]


def test_without_branches_it_is_leave_one_out(group):
    view = group([1.0, 0.5, 0.0], ["??", "?", "?"], nodes_G=[["p", "x"], ["q"], ["r"]])
    assert tree([view]).credit_I_G_K == METHODS["leave_one_out"]([view]).credit_I_G_K


def test_a_leaf_without_a_grade_is_in_no_value(group):
    view = group([1.0, None, 0.0], ["??", "??", "?"], nodes_G=[["p", "x"], ["p", "y"], ["q"]])
    assert tree([view]).credit_I_G_K == [[[1.0, 1.0], [0.0, 0.0], [-1.0]]]


def test_a_tree_that_is_none_is_refused(group):
    with pytest.raises(UserError, match="turn 0 of member 0 has no node"):
        tree([group([1.0, 0.0], ["a", "a"])])
    with pytest.raises(UserError, match="node x has two parents, p and q"):
        tree([group([1.0, 0.0], ["??", "??"], nodes_G=[["p", "x"], ["q", "x"]])])
