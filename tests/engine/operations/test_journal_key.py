# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key of a journal is begun before it is needed, and made once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports import encryption
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.encryption import Keyring
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.attempt_journal import AttemptJournal
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem


def test_it_is_made_while_an_exports_keys_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=20)  # broken unless both are under way at once
    made: list[bytes] = []

    def stretched(passphrase: bytes, salt: bytes) -> bytes:
        made.append(salt)
        both.wait()
        return salt.ljust(32)

    monkeypatch.setattr(encryption, "_stretched", stretched)
    ring = Keyring(b"correct horse battery")
    AttemptJournal(open_filesystem(tmp_path.as_uri(), {}), "vm/attempt", ring.journal_key).expect()
    ring.new_chain("machine", "chain")
    assert ring.journal_key("attempt") == ring.journal_key("attempt")
    assert len(made) == 2


def test_one_that_cannot_be_made_is_told_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(attempt: str) -> bytes:
        raise VmferryError("unsupported", "There is no scrypt.")

    journal = AttemptJournal(open_filesystem(tmp_path.as_uri(), {}), "vm/attempt", missing)
    journal.expect()
    for thread in threading.enumerate():
        if thread.name == "vmferry-journal-key":
            thread.join()
    assert capsys.readouterr().err == ""
    with pytest.raises(VmferryError, match="no scrypt"):
        journal.of_disk("disk-0", "", "")._write("x", b"")
