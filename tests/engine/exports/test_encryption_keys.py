# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a manifest may ask for to make its keys, and which keys come out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports import encryption
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.encryption import (
    Encryption,
    Keyring,
    read_encryption,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.fields import Fields
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import read_manifest
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import Seals

from .samples import UUID, disk, manifest

WORD = b"correct horse battery"
TOLD = Encryption("ab" * 16, "cd" * 32)
LEAF = memoryview(b"a" * 65536)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "_COST", (1 << 10, 8, 1))


def read(**changed: int) -> Encryption | None:
    said: dict[str, Any] = {**TOLD.as_dict(), **changed}
    return read_encryption(Fields({"encryption": said}, "file:///srv/manifest.json"))


def test_what_is_written_is_read() -> None:
    assert read() == TOLD


@pytest.mark.parametrize(
    "asked",
    [{"n": 2, "r": 1 << 18, "p": 16}, {"n": 1 << 16, "p": 16}, {"n": 1 << 17, "r": 1}, {"p": 4}, {"n": 2}, {"r": 0}],
)
def test_no_manifest_has_this_host_do_other_work_than_is_ever_written(
    asked: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encryption, "_stretched", lambda *_given: pytest.fail("worked"))
    with pytest.raises(VmferryError, match="is ever written") as told:
        read(**asked)
    assert told.value.kind == "invalid_config"


def leaf_digest(ring: Keyring, chain_id: str, disk_id: str = "disk-0") -> bytes:
    keys = ring.keys(ring.new_chain(UUID, chain_id).encryption, chain_id)
    assert keys is not None
    return keys.of_disk("20261121T063000Z-1a2b3c4d", disk_id, "0" * 32).leaf_hash(7, LEAF)


def read_by(ring: Keyring, by: Keyring) -> None:
    """The sample machine's manifest, signed by `by`."""
    keys = by.new_chain(UUID, "0badc0de")
    disks = tuple(replace(disk(number), key_nonce="0" * 32) for number in range(2))
    made = manifest(disks=disks, encryption=keys.encryption, keys=keys)
    sealed = Seals(signers=(by,)).seal(made.to_json(str))
    read_manifest(sealed, "file:///srv/manifest.json", Seals(signers=(ring,), keyring=ring))


def test_no_digest_of_one_chain_or_disk_is_that_of_another() -> None:
    ring = Keyring(WORD)
    read_by(ring, Keyring(WORD))  # so that all have one salt
    assert leaf_digest(ring, "0badc0de") == leaf_digest(ring, "0badc0de")
    others = [leaf_digest(ring, "0badc0de"), leaf_digest(ring, "600dc0de"), leaf_digest(ring, "0badc0de", "disk-1")]
    assert len(set(others)) == 3


def test_a_machine_takes_over_its_own_salt_and_no_others() -> None:
    ring = Keyring(WORD)
    read_by(ring, Keyring(WORD))
    taken = ring.new_chain(UUID, "600dc0de").encryption
    assert ring.new_chain(UUID, "f00dc0de").encryption == taken
    assert ring.new_chain("another", "600dc0de").encryption.salt != taken.salt
