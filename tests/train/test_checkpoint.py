import errno
from pathlib import Path

import pytest

from agentrft.errors import StoreFault
from agentrft.train.checkpoint import Checkpoints, verified


class Weights:
    """A learner as far as checkpoints know it: it writes files, some of them in a folder."""

    def __init__(self, content: str = "w") -> None:
        self.content = content

    async def save(self, folder: Path) -> None:
        (folder / "adapter.safetensors").write_text(self.content)
        (folder / "extra").mkdir()
        (folder / "extra" / "part.bin").write_bytes(b"\x00\x01")


class FullDisk(Weights):
    async def save(self, folder: Path) -> None:
        await super().save(folder)
        raise OSError(errno.ENOSPC, "No space left on device")


class Dies(Weights):
    async def save(self, folder: Path) -> None:
        await super().save(folder)
        raise KeyboardInterrupt


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_saved_checkpoint_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    saved = await checkpoints.save(Weights("abc"), 12, {"scale": 0.1})
    assert saved.name == "step-00000012"
    assert (saved.path / "adapter.safetensors").read_text() == "abc"
    assert checkpoints.newest() == checkpoints.at(12) == saved == verified(saved.path)
    assert (saved.step, saved.state) == (12, {"scale": 0.1})
    assert names(saved.path) == ["adapter.safetensors", "extra", "manifest.json", "state.json"]


def test_no_checkpoint_is_none(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new" / "folder", keep=3)
    assert checkpoints.newest() is None
    assert checkpoints.at(3) is None


async def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (0, 4, 8, 12, 16):
        await checkpoints.save(Weights(), step, {}, keep_steps={4})
    assert names(tmp_path) == ["step-00000004", "step-00000012", "step-00000016"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _flip(folder / "adapter.safetensors"),
        lambda folder: _flip(folder / "extra" / "part.bin"),
        lambda folder: _flip(folder / "state.json"),
        lambda folder: (folder / "adapter.safetensors").unlink(),
        lambda folder: (folder / "adapter.safetensors").write_text(""),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text('{"format": 1, "step'),
        lambda folder: (folder / "manifest.json").write_text("[]"),
    ],
)
async def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (4, 8):
        await checkpoints.save(Weights(), step, {})
    damage(tmp_path / "step-00000008")
    assert checkpoints.at(8) is None
    newest = checkpoints.newest()
    assert newest
    assert newest.step == 4
    assert names(tmp_path) == ["bad-step-00000008", "step-00000004"]
    # The same step can be saved and go bad again; the evidence of both stays.
    await checkpoints.save(Weights(), 8, {})
    damage(tmp_path / "step-00000008")
    assert checkpoints.newest() == newest
    assert names(tmp_path) == ["bad-step-00000008", "bad-step-00000008.1", "step-00000004"]


async def test_a_file_added_later_does_no_harm(tmp_path):
    saved = await Checkpoints(tmp_path, keep=3).save(Weights(), 4, {})
    (saved.path / "README.md").write_text("mine")
    assert verified(saved.path) == saved


async def test_a_full_disk_leaves_earlier_checkpoints_and_nothing_half_done(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    await checkpoints.save(Weights(), 4, {})
    with pytest.raises(StoreFault, match=r"No space left on device; free disk space, then resume"):
        await checkpoints.save(FullDisk(), 8, {})
    assert names(tmp_path) == ["step-00000004"]


async def test_a_save_that_was_killed_is_not_a_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    await checkpoints.save(Weights(), 4, {})
    with pytest.raises(KeyboardInterrupt):
        await checkpoints.save(Dies(), 8, {})
    assert names(tmp_path) == [".tmp-step-00000008", "step-00000004"]
    again = Checkpoints(tmp_path, keep=3)
    assert names(tmp_path) == ["step-00000004"]
    await again.save(Weights(), 8, {})
    newest = again.newest()
    assert newest
    assert newest.step == 8


async def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    await checkpoints.save(Weights("old"), 4, {})
    saved = await checkpoints.save(Weights("new"), 4, {})
    assert (saved.path / "adapter.safetensors").read_text() == "new"
