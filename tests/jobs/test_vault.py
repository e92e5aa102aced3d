"""Sealed values open for what they were made for only; the master key is made once, and kept to its owner."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrft.errors import UserError
from agentrft.jobs.vault import (
    MasterKey,
    Vault,
    is_sealed,
    masked_fields,
    master_file,
    master_keys,
    open_vault,
    seal_fields,
    unseal_fields,
)
from agentrft.net.secrets import MASK

KEY, OTHER = MasterKey.made(), MasterKey.made()
VAULT = Vault(lambda: (KEY,))


@given(st.text(), st.text())
def test_what_is_sealed_comes_back(text: str, context: str) -> None:
    if any(0xD800 <= ord(character) < 0xE000 for character in text + context):
        return
    sealed = VAULT.seal(text, context)
    assert is_sealed(sealed)
    assert VAULT.unseal(sealed, context) == text
    assert VAULT.seal(text, context) != sealed


def test_it_opens_nowhere_else() -> None:
    sealed = VAULT.seal("text", "proj_a|job|field")
    for context in ("proj_b|job|field", "proj_a|job|other", ""):
        with pytest.raises(UserError) as error:
            VAULT.unseal(sealed, context)
        assert error.value.code == "secret_unreadable"


def test_every_changed_character_is_noticed() -> None:
    sealed = VAULT.seal("text", "c")
    for place in range(len("sealed:1:"), len(sealed)):
        if sealed[place] == "=":
            continue
        changed = sealed[:place] + ("A" if sealed[place] not in "AQgw" else "z") + sealed[place + 1 :]
        with pytest.raises(UserError):
            VAULT.unseal(changed, "c")


def test_another_master_key_opens_nothing_and_a_second_one_does() -> None:
    sealed = VAULT.seal("text", "c")
    with pytest.raises(UserError, match=KEY.id):
        Vault(lambda: (OTHER,)).unseal(sealed, "c")
    both = Vault(lambda: (OTHER, KEY))
    assert both.unseal(sealed, "c") == "text"
    moved = both.rewrap(sealed)
    assert moved.rpartition(":")[2] == sealed.rpartition(":")[2]  # the value itself was not touched
    assert Vault(lambda: (OTHER,)).unseal(moved, "c") == "text"
    assert both.rewrap(moved) == moved


def test_masked_fields_are_sealed_and_others_are_not() -> None:
    plain = {"a": "secret", "b": ["open", "secret"], "c": {"d": 1, "e": "sealed:1:fake"}, "f": MASK}
    masked = {"a": MASK, "b": ["open", MASK], "c": {"d": 1, "e": "sealed:1:fake"}, "f": MASK}
    sealed = seal_fields(plain, masked, VAULT.seal)
    assert (sealed["b"][0], sealed["c"]["d"], sealed["f"]) == ("open", 1, MASK)
    assert is_sealed(sealed["a"])
    assert is_sealed(sealed["b"][1])
    assert VAULT.unseal(sealed["b"][1], "b.1") == "secret"
    assert VAULT.unseal(sealed["c"]["e"], "c.e") == "sealed:1:fake"  # so that nothing else ever looks sealed
    assert unseal_fields(sealed, VAULT.unseal) == plain
    assert masked_fields(sealed) == {"a": MASK, "b": ["open", MASK], "c": {"d": 1, "e": MASK}, "f": MASK}
    assert unseal_fields(plain["b"], VAULT.unseal) == plain["b"]  # as older versions kept them


def test_of_many_processes_that_make_the_key_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path))
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(master_keys()[0].id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert master_file().stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]


@pytest.mark.parametrize("text", ["", "nonsense", "id:", "id:AAAA", "\xff"])
def test_a_broken_key_file_is_told_and_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path))
    master_file().write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as error:
        open_vault().seal("text", "c")
    assert error.value.code == "invalid_master_key"
    assert master_file().read_text(encoding="latin-1") == text
