# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains that are encrypted or signed live in every store as they do in a folder: made, read, merged, removed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from engine.exports.keys import key, signing

from ansible_collections.vmferry.migrate.plugins.module_utils._exports import encryption
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.encryption import Keyring
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._images import luks
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3 import store as s3

from .chains import LEAF, Chain, Guest, export, restored
from .objects_rig import one_client, opened
from .store_rigs import StoreRig

WORD = b"correct horse battery"
KINDS = [
    *((rig, "encrypted and signed") for rig in ("s3", "azure", "gcs", "nginx_dav")),
    ("s3", "signed"),
]


def sealed(how: str, *, strict: bool = False) -> Seals:
    if how == "signed":
        return signing(1)
    ring = Keyring(WORD, strict)
    return replace(signing(1), signers=(key(1), ring), keyring=ring)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luks, "ITERATIONS", 1000)
    monkeypatch.setattr(encryption, "_COST", (1 << 10, 8, 1))
    monkeypatch.setattr(s3, "connect", one_client)


@dataclass
class Sealed:
    """A VM's exports in a store, all made and read in one way."""

    how: str
    spec: StoreSpec
    state: Path

    def __post_init__(self) -> None:
        self.guest, self.chain = Guest(), Chain()

    def make(self) -> None:
        made = export(self.spec, self.guest, self.state, seals=sealed(self.how))["export"]
        assert made["mode"] == ("incremental" if self.chain.ids else "full")
        self.chain.add(made["id"], self.guest.now)
        self.guest.write_some()

    def clean_up(self, limits: Limits) -> list[str]:
        """The ids of those that others were merged into."""
        nothing = Protections(keep_last=0, min_retention=0)
        asked = CleanupRequest(self.spec, limits, nothing, merge=True, seals=sealed(self.how))
        told = clean_up_exports(asked, False)
        assert told["broken"] == []
        return [one["id"] for one in told["merged"]]

    def assert_whole(self, store: Store) -> list[str]:
        strict = sealed(self.how, strict=True)
        told = list_exports(self.spec, "", "", [], "", False, strict)["exports"]
        asked = VerifyRequest(self.spec, "content", seals=strict, transfer=self.transfer)
        assert verify_export(asked, False)["problems"] == []
        for one in told:
            assert one["signature"] == "valid"
            assert restored(store, one["id"], strict) == self.chain.held[one["id"]]
        return [one["id"] for one in told]

    @property
    def transfer(self) -> TransferOptions:
        return TransferOptions(state_dir=str(self.state), max_retries=0)

    def is_told_by(self, store: Store) -> bool:
        """Whether any half leaf of a disk is in any object."""
        stored = [store.get(info.key) for info in store.list("")]
        halves = {
            data[at : at + 32]
            for disks in self.chain.held.values()
            for data in disks.values()
            for at in range(0, len(data) - 32, LEAF // 2)
        }
        return any(half in text for text in stored for half in halves if any(half))


@pytest.mark.parametrize(("rig", "how"), KINDS, indirect=["rig"])
def test_a_chain_is_made_read_merged_and_removed(rig: StoreRig, how: str, tmp_path: Path) -> None:
    server = vars(rig)["server"]
    chain = Sealed(how, StoreSpec(rig.fresh().url, server.settings), tmp_path / "state")
    with opened(chain.spec) as store:
        for _unused in range(2):
            chain.make()
        assert chain.is_told_by(store) == (how == "signed")
        assert chain.clean_up(Limits(max_count=1)) == chain.chain.ids[1:]
        chain.make()
        assert chain.assert_whole(store) == chain.chain.ids[1:]
        chain.clean_up(Limits(exports=tuple(chain.chain.ids[1:])))
        assert [name for name in rig.leftovers(store) if not name.endswith("/")] == []
