"""Files by the hash of their contents."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agentrft.errors import StoreFault, UserError
from agentrft.store import Artifacts

# sha256("hello"), from `printf hello | sha256sum`
HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_bytes_are_kept_under_their_hash(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "files")
    assert artifacts.put(b"hello") == HELLO
    assert artifacts.put(b"hello") == HELLO
    assert artifacts.path(HELLO) == tmp_path / "files" / HELLO
    assert artifacts.read(HELLO) == b"hello"
    assert [path.name for path in (tmp_path / "files").iterdir()] == [HELLO]


def test_a_large_file_is_copied_in_pieces(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 10_000)  # 2.4 MiB: three pieces
    artifacts = Artifacts(tmp_path / "files")
    sha256 = artifacts.put_file(source)
    assert sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert artifacts.read(sha256) == source.read_bytes()


@pytest.mark.parametrize("name", ["0" * 64, "../store.db", "", HELLO.upper()])
def test_what_is_not_here_is_the_users_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(UserError, match=r"no file with SHA-256 .*; upload it again"):
        Artifacts(tmp_path / "files").read(name)


def test_a_missing_source_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*absent; check the path"):
        Artifacts(tmp_path / "files").put_file(tmp_path / "absent")


def test_damage_is_noticed_when_read(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    artifacts.put(b"hello")
    (tmp_path / HELLO).write_bytes(b"hellp")
    with pytest.raises(StoreFault, match="does not match its hash"):
        artifacts.read(HELLO)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"hello")
    (tmp_path / "files").write_text("a file where the folder should be")
    with pytest.raises(StoreFault, match="could not keep a file"):
        Artifacts(tmp_path / "files").put_file(source)

    folder = tmp_path / "taken"
    (folder / HELLO).mkdir(parents=True)  # the rename fails after all bytes are written
    with pytest.raises(StoreFault, match="could not keep a file"):
        Artifacts(folder).put(b"hello")
    assert [path.name for path in folder.iterdir()] == [HELLO]
