import re

from agentrft.rollout.ids import EpisodeKey, episode_id, seed, trace_id


def test_ids_have_the_documented_shape_and_never_change():
    key = EpisodeKey(run="ftjob-1", step=3, item="row-7", member=2, attempt=1)
    # printf '["episode", "ftjob-1", 3, "row-7", 2, 1]' | sha256sum | cut -c1-24
    assert key.id == episode_id("ftjob-1", 3, "row-7", 2, 1) == "ep_fe2b2100d1ad6090ff8e1e06"
    assert re.fullmatch(r"trace_[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", key.trace_id)
    assert key.trace_id == trace_id("ftjob-1", 3, "row-7", 2, 1)


def test_every_part_of_the_key_changes_id_and_seed():
    base = {"run": "a", "step": 1, "item": "i", "member": 0, "attempt": 0}
    keys = [EpisodeKey(**base)]
    for change in ({"run": "b"}, {"step": 2}, {"item": "j"}, {"member": 1}, {"attempt": 1}):
        keys.append(EpisodeKey(**{**base, **change}))
    assert len({key.id for key in keys}) == 6
    assert len({key.seed(0) for key in keys}) == 6
    assert keys[0].seed(0) != keys[0].seed(1)


def test_parts_do_not_run_together():
    assert seed("a", "bc") != seed("ab", "c")
    assert seed("1") != seed(1)


def test_seeds_fit_a_signed_64_bit_integer():
    assert all(0 <= seed("run", i) < 2**63 for i in range(1000))
