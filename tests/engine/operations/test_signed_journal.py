# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export that is signed goes on only with what the same key wrote down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine.exports.keys import key, signing, trusting
from one_vm import OneVm, export_one

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.ed25519 import TrustedKeys
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.encryption import Keyring
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import JOURNAL
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import UNCHECKED, Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.signing import JournalKey
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.attempt_journal import AttemptJournal
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem

MINE, ANOTHERS = signing(1).journal_key, signing(2).journal_key


class Failing(OneVm):
    """Its point in time is lost right before the commit."""

    @contextmanager
    def open_export(self, *asked: object) -> Iterator[Any]:
        with super().open_export(*asked) as session:
            session.confirm = self._fail
            yield session

    def _fail(self) -> None:
        raise VmferryError("network", "The connection broke.")


@pytest.mark.parametrize(
    ("seals", "change", "goes_on"),
    [
        (signing(1), lambda text: text, True),
        (signing(1), lambda text: text.replace(b'"purpose": ""', b'"purpose":  ""'), False),
        (signing(1), lambda text: text[:-32], False),
        (signing(2), lambda text: text, False),
        (UNCHECKED, lambda text: text, False),
    ],
    ids=["the same", "changed", "without its proof", "another key", "no key"],
)
def test_what_an_export_left_is_gone_on_with_by_whoever_has_the_key(
    tmp_path: Path, seals: Seals, change: Callable[[bytes], bytes], goes_on: bool
) -> None:
    store, options = tmp_path / "store", TransferOptions(state_dir=str(tmp_path / "state"), max_retries=0)
    with pytest.raises(VmferryError, match="The connection broke"):
        export_one(store, Failing(), options, on_failure="keep", seals=signing(1))
    (left,) = store.glob(f"*/*/{JOURNAL}attempt.json")
    left.write_bytes(change(left.read_bytes()))
    told = export_one(store, OneVm(), options, check_mode=True, on_failure="keep", seals=seals)
    (finding,) = [one["message"] for one in told["findings"] if "unfinished export" in one["message"]]
    assert ("would go on with" in finding) is goes_on, finding
    assert goes_on or "its journal cannot be read" in finding


def test_each_piece_of_a_journal_is_proved_where_it_lies(tmp_path: Path) -> None:
    store = open_filesystem(tmp_path.as_uri(), {})

    def journal(secret: JournalKey | None, folder: str = "vm/made") -> AttemptJournal:
        return AttemptJournal(store, folder, secret)

    journal(MINE)._write("disk-0.journal-0", b"digests")
    assert journal(MINE)._read("disk-0.journal-0") == b"digests"
    assert journal(ANOTHERS)._read("disk-0.journal-0") is None
    assert journal(MINE)._read("disk-0.journal-1") is None
    text = store.get(f"vm/made/{JOURNAL}disk-0.journal-0")
    for elsewhere, name in (("vm/made", "disk-0.journal-1"), ("vm/other", "disk-0.journal-0")):
        store.put(f"{elsewhere}/{JOURNAL}{name}", text)
        assert journal(MINE, elsewhere)._read(name) is None
    for forged in (text[:-1], b"digest5" + text[7:], b"digests", b"", text + b"x"):
        store.put(f"vm/made/{JOURNAL}disk-0.journal-0", forged)
        assert journal(MINE)._read("disk-0.journal-0") is None
    journal(None)._write("disk-0.journal-0", b"digests")
    assert store.get(f"vm/made/{JOURNAL}disk-0.journal-0") == b"digests"
    assert journal(None)._read("disk-0.journal-0") == b"digests"


@pytest.mark.parametrize(
    "mine", [key(1).journal_key, Keyring(b"correct horse battery").journal_key], ids=["key", "passphrase"]
)
def test_each_export_has_a_secret_of_its_own_and_a_guess_at_one_is_none_at_others(mine: JournalKey) -> None:
    assert mine("made") == mine("made") != mine("other")
    assert len(mine("made")) == 32


def test_the_secret_is_of_the_key_and_in_no_repr() -> None:
    assert MINE is not None
    assert ANOTHERS is not None
    assert MINE("made") != ANOTHERS("made")
    assert MINE("made").hex() not in repr(signing(1))
    assert repr(MINE("made")) not in repr(signing(1))


class Untouchable(OneVm):
    """Nothing may be read of it."""

    @contextmanager
    def open_export(self, *_unused: object) -> Iterator[Any]:
        raise AssertionError("a point in time was taken")
        yield

    reopen_export = open_export


@pytest.mark.parametrize("check_mode", [False, True], ids=["run", "check mode"])
def test_trusted_keys_that_the_unfinished_export_would_not_pass_are_refused_before_a_byte_moves(
    tmp_path: Path, check_mode: bool
) -> None:
    """An encrypted export signs itself, by a key that the passphrase and its own salt make."""
    ring = Keyring(b"correct horse battery")
    mine = Seals((ring,), (), ring.journal_key, ring)
    store, options = tmp_path / "store", TransferOptions(state_dir=str(tmp_path / "state"), max_retries=0)
    with pytest.raises(VmferryError, match="The connection broke"):
        export_one(store, Failing(), options, on_failure="keep", seals=mine)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}

    def asked(seals: Seals) -> dict[str, Any]:
        return export_one(store, Untouchable(), options, check_mode=check_mode, on_failure="keep", seals=seals)

    strangers = replace(mine, trusts=trusting(2).trusts)
    if check_mode:
        told = asked(strangers)
        assert not told["changed"]
        assert {one["kind"] for one in told["findings"] if one["severity"] == "error"} == {"invalid_config"}
    else:
        with pytest.raises(VmferryError, match="would go on with") as refused:
            asked(strangers)
        assert (refused.value.kind, "trusted_keys" in refused.value.hint) == ("invalid_config", True)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_an_unfinished_encrypted_export_goes_on_where_its_own_key_is_trusted_since(tmp_path: Path) -> None:
    ring = Keyring(b"correct horse battery")
    mine = Seals((ring,), (), ring.journal_key, ring)
    store, options = tmp_path / "store", TransferOptions(state_dir=str(tmp_path / "state"), max_retries=0)
    with pytest.raises(VmferryError, match="The connection broke"):
        export_one(store, Failing(), options, on_failure="keep", seals=mine)
    (left,) = store.glob(f"*/*/{JOURNAL}attempt.json")
    folder = left.parent.parent.relative_to(store)
    state = AttemptJournal(open_filesystem(store.as_uri(), {}), str(folder), ring.journal_key).state()
    assert state is not None
    assert state.encryption is not None
    own = replace(mine, trusts=(TrustedKeys(frozenset({state.encryption.public_key})),))

    class Again(OneVm):
        @contextmanager
        def reopen_export(self, *_unused: object) -> Iterator[Any]:
            with self.open_export() as session:
                yield session

    told = export_one(store, Again(), options, on_failure="keep", seals=own)
    assert (told["resumed"]["reason"], told["export"]["signature"]) == ("", "valid")
