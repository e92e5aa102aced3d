from agentrft.credit import METHODS, peers_of

step_baseline = METHODS["step_baseline"]


def test_step_baseline_by_hand(group):
    # Rewards 1, 0, 0. Others' means: 0, 1/2, 1/2. At b, members 0 and 1 meet. Member 0: peer mean 0 equals the others'
    # mean, so nothing changes. Member 1: b moves from 1/2 by 1/4 · (1 − 1/2) to 5/8, so −5/8.
    # At a everybody meets, and the peers' mean is the others' mean.
    credited = step_baseline([group([1.0, 0.0, 0.0], ["ab", "ab", "a"])])
    assert credited.credit_I_G_K == [[[1.0, 1.0], [-0.5, -0.625], [-0.5]]]
    assert credited.parts_I_G_K[0][1][1] == {"trajectory": -0.5, "step": -0.125}


def test_rewards_of_earlier_turns_are_not_credited_again(group):
    # Returns to go: member 0 earns 0.25 at turn 0 and 1 at the end: 1.25, 1; member 1: 0. Others' means 0 and 1.25.
    view = group([1.0, 0.0], ["ab", "ac"], turn_rewards_G=[[0.25, 0.0], [0.0, 0.0]])
    assert step_baseline([view]).credit_I_G_K == [[[1.25, 1.0], [-1.25, -1.25]]]


def test_alone_there_is_nothing_to_compare_with(group):
    assert step_baseline([group([1.0, None], ["ab", "ab"])]).credit_I_G_K == [[[0.0, 0.0], [0.0, 0.0]]]


def test_peers_say_who_when_what_and_what_it_brought(group):
    view = group(
        [1.0, 0.25, None, 0.5],
        ["ab", "acb", "ab", "ad"],
        calls_G=[["ls", "cat"], ["ls", "grep", "find"], ["ls", "cat"], ["ls", "cat"]],
    )
    peers = peers_of(view)[0][1]
    assert (peers.n, peers.members, peers.turns) == (1, (1,), (2,))
    assert (peers.calls, peers.returns, peers.mean) == ((("find",),), (0.25,), 0.25)
    assert peers_of(view)[0][0].members == (1, 3)  # member 2 has no grade
    assert peers_of(view)[2][0].n == 0
    assert peers_of(view)[3][1].n == 0


def test_a_peer_counts_once_however_often_it_came_back(group):
    assert peers_of(group([1.0, 0.0], ["ab", "abbb"]))[0][1].turns == (1,)
