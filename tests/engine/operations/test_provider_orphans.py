# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the provider a cleanup removes what this store knows to be nobody's any more, and nothing of other stores."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from engine.exports.shelves import begin, clean_up, commit, folder_of
from one_vm import VM

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import DAY
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Undone
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem

CHAIN, OTHER_CHAIN = "aaaaaaaa", "bbbbbbbb"
LIBVIRT = ProviderSpec("libvirt")


class Tracking:
    """As much of a provider as a cleanup needs; `kept` are its tokens."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.undone: list[str] = []
        self.dead: set[str] = set()  # attempts, as it was told
        self.trouble: VmferryError | None = None
        self.machines = [VM, replace(VM, id="9" * 8, name="db01")]

    def vms(self) -> Sequence[VmSpec]:
        return self.machines

    def gone_vms(self) -> Sequence[VmSpec]:
        return ()

    def tokens(self, vm: VmSpec) -> Sequence[str]:
        return self.kept if vm.name == "web01" else []

    def forget(self, vm: VmSpec, tokens: Sequence[str]) -> Sequence[str]:
        self.kept = [token for token in self.kept if token not in tokens]
        return [f"Dropped {token}." for token in tokens]

    def clean_up(
        self, vm: VmSpec, *, held_by: Collection[str] | None = None, dead: Collection[str] = ()
    ) -> Sequence[Undone]:
        if self.trouble is not None:
            raise self.trouble
        self.undone.append(vm.name)
        self.dead.update(dead)
        return [Undone(f"Aborted the backup job of a dead job on {vm.name}.")]

    def close(self) -> None:
        pass


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Tracking:
    fake = Tracking()
    monkeypatch.setattr(clean_up_exports, "open_provider", lambda name, settings: fake)
    return fake


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_filesystem(str(tmp_path / "store"), {})


def token(number: int, chain: str = CHAIN) -> str:
    return f"vmferry-{chain}-{number:08x}"


def exported(store: Store, age: float, number: int, parent: str = "", chain: str = CHAIN) -> str:
    return commit(store, age, number=number, parent=parent, chain_id=chain, change_token=token(number, chain))


def test_of_a_chain_the_newest_exports_token_stays_and_older_ones_go(store: Store, provider: Tracking) -> None:
    exported(store, 1, 2, exported(store, 2, 1))
    provider.kept = [token(1), token(2), token(3)]
    told = clean_up(store, orphans=True, provider=LIBVIRT)["orphans"]
    assert provider.kept == [token(2)]
    assert [(one["where"], one["kind"]) for one in told if one["kind"] == "token"] == [("web01", "token")] * 2


@pytest.mark.parametrize(
    "foreign", [token(7, OTHER_CHAIN), "before-upgrade", "vmferry-notes", f"vmferry-{CHAIN}-00000001-x"]
)
def test_tokens_of_chains_in_other_stores_and_of_others_stay(store: Store, provider: Tracking, foreign: str) -> None:
    exported(store, 1, 1)
    provider.kept = [foreign]
    clean_up(store, orphans=True, provider=LIBVIRT)
    assert provider.kept == [foreign]


def test_of_a_full_export_that_was_to_be_an_increment_the_token_is_known_by_its_attempt(
    store: Store, provider: Tracking
) -> None:
    """It is named after the chain that the export left, of which this store may have nothing any more."""
    left = commit(store, 3, number=1, chain_id=OTHER_CHAIN, change_token=token(1))
    exported(store, 1, 2, left, OTHER_CHAIN)
    commit(store, 40, number=3, chain_id="0000dddd", change_token=token(3))
    provider.kept = [token(1), token(2, OTHER_CHAIN), token(3), token(4)]
    clean_up(store, orphans=True, provider=LIBVIRT, max_age=30 * DAY)
    assert provider.kept == [token(2, OTHER_CHAIN), token(4)]


def test_the_token_of_an_attempt_goes_when_it_died_and_stays_while_it_lives(store: Store, provider: Tracking) -> None:
    base = exported(store, 1, 1)
    begin(store, parent=base, number=2)
    begin(store, lease=-1.0, number=3)
    provider.kept = [token(2), token(3, OTHER_CHAIN)]
    clean_up(store, orphans=True, provider=LIBVIRT)
    assert provider.kept == [token(2)]
    assert provider.dead == {f"{3:08x}"}


def test_the_tokens_of_a_chain_go_with_its_last_export(store: Store, provider: Tracking) -> None:
    exported(store, 40, 1)
    provider.kept = [token(1), token(2, OTHER_CHAIN)]
    planned = clean_up(store, check_mode=True, orphans=True, provider=LIBVIRT, max_age=DAY)
    assert [one["kind"] for one in planned["orphans"]] == ["token"]
    assert len(provider.kept) == 2
    clean_up(store, orphans=True, provider=LIBVIRT, max_age=DAY)
    assert provider.kept == [token(2, OTHER_CHAIN)]


def test_the_token_of_an_export_whose_manifest_cannot_be_read_stays(store: Store, provider: Tracking) -> None:
    exported(store, 2, 1)
    broken = exported(store, 1, 2)
    store.put(f"{folder_of(broken)}/{MANIFEST}", b"{")
    provider.kept = [token(2)]
    clean_up(store, orphans=True, provider=LIBVIRT)
    assert provider.kept == [token(2)]


def test_what_dead_jobs_left_is_undone_but_not_in_check_mode(store: Store, provider: Tracking) -> None:
    exported(store, 1, 1)
    clean_up(store, check_mode=True, orphans=True, provider=LIBVIRT)
    assert provider.undone == []
    told = clean_up(store, orphans=True, provider=LIBVIRT, vm=("web01",))["orphans"]
    assert provider.undone == ["web01"]
    assert [one["kind"] for one in told] == ["provider"]


def test_a_vm_with_a_living_job_is_passed_over(store: Store, provider: Tracking) -> None:
    exported(store, 1, 1)
    provider.trouble = VmferryError("busy", "web01 is in use.")
    assert clean_up(store, orphans=True, provider=LIBVIRT)["orphans"] == []


def test_a_provider_that_cannot_be_reached_fails_the_task_after_the_store_was_cleaned(
    store: Store, provider: Tracking
) -> None:
    begin(store, lease=-1.0, number=1)
    provider.trouble = VmferryError("permission_denied", "No.")
    with pytest.raises(VmferryError) as caught:
        clean_up(store, orphans=True, provider=LIBVIRT)
    assert [one["kind"] for one in caught.value.done["orphans"]] == ["attempt"]
    assert caught.value.done["failures"] == [
        {"where": "the provider libvirt", "msg": "No.", "kind": "permission_denied"}
    ]


def test_the_provider_is_left_alone_where_nobody_asks_for_orphans(store: Store, provider: Tracking) -> None:
    exported(store, 2, 1)
    provider.kept = [token(9)]
    clean_up(store, max_age=DAY, provider=LIBVIRT)
    assert (provider.kept, provider.undone) == ([token(9)], [])
