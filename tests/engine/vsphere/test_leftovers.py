# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What exports that were killed left on vSphere: removed by whoever knows that they are dead, and by nobody else."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.snapshots import SnapshotWish
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import (
    leftovers,
    snapshot_tree,
    temporary_snapshot,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.snapshot_tree import mark_of, owner_of
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import current_owner, is_owner_alive
from rigs.vsphere import VSphere

pytestmark = pytest.mark.slow
HERE = current_owner()
DEAD = {**HERE, "pid_started": 1}
ELSEWHERE = {**HERE, "hostname": "worker-7.example.com", "boot_id": "0f5be31c-7c8d-4e57-9f3f-000000000000"}


class Machine:
    """One VM, and snapshots of whoever made them."""

    def __init__(self, vcenter: VSphere, provider: VsphereProvider, owner: Callable[[dict[str, Any]], object]) -> None:
        self._vcenter, self.provider, self._own = vcenter, provider, owner
        self.name = f"left-{secrets.token_hex(4)}"
        vcenter.make_vm(self.name, [bytes(65536)], running=True)
        self.vm = provider.describe(self.name)

    def snapshot(self, owner: dict[str, Any] | None) -> Job:
        """Of an export of this owner; None: one that was asked for, with disk_snapshot."""
        self._own(owner or HERE)
        job = Job(secrets.token_hex(16), secrets.token_hex(4), "00c0ffee")
        wish = SnapshotWish(job.token, temporary=owner is not None)
        self.provider.snapshots(self.vm).create(wish, job, 60)
        return job

    def names(self) -> list[str]:
        return [name for where, name in self._vcenter.leftovers().snapshots.items() if where.startswith(self.name)]

    def refusal(self, work: Callable[[], object]) -> VmferryError:
        with pytest.raises(VmferryError) as refused:
            work()
        return refused.value

    def remove_all(self) -> None:
        snapshots = self.provider.snapshots(self.vm)
        for one in snapshots.list():
            snapshots.remove(one.name, Job("", ""), 60)


@pytest.fixture
def machine(vcenter: VSphere, provider: VsphereProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(vcenter, provider, lambda owner: monkeypatch.setattr(snapshot_tree, "current_owner", lambda: owner))
    yield made
    vcenter.heal()
    made.remove_all()


def test_mark_tells_which_process_it_is(machine: Machine) -> None:
    wish, job = SnapshotWish("x", temporary=True), Job("1" * 32, "2" * 8, "3" * 8)
    for owner in (HERE, ELSEWHERE):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(snapshot_tree, "current_owner", lambda owner=owner: owner)
            mark = snapshot_tree._read(mark_of(wish, machine.vm, job))
        assert dict(owner_of(mark) or {}) == owner
    assert is_owner_alive(owner_of(snapshot_tree._read(mark_of(wish, machine.vm, job))) or {}) is True
    asked_for = snapshot_tree._read(mark_of(SnapshotWish("x"), machine.vm, job))
    assert (asked_for["vm"], owner_of(asked_for)) == (machine.vm.id, None)


def test_snapshot_of_a_dead_run_is_removed_and_no_other(machine: Machine) -> None:
    asked_for = machine.snapshot(None)
    dead = machine.snapshot(DEAD)
    (undone,) = machine.provider.clean_up(machine.vm)
    assert dead.job_id in undone.sentence
    assert machine.names() == [asked_for.token]
    assert machine.provider.clean_up(machine.vm) == []


def test_snapshot_of_a_living_run_stays_and_is_told(machine: Machine) -> None:
    dead, living = machine.snapshot(DEAD), machine.snapshot(HERE)
    refused = machine.refusal(lambda: machine.provider.clean_up(machine.vm, dead=[living.attempt]))
    assert (refused.kind, living.job_id in refused.message) == ("busy", True)
    assert machine.names() == [living.token]
    assert machine.refusal(lambda: machine.provider.undo(living.job_id)).kind == "busy"
    assert machine.provider.undo(dead.job_id) == []
    assert machine.names() == [living.token]


def test_run_on_another_host_counts_as_dead_where_its_store_knows_that(machine: Machine) -> None:
    far = machine.snapshot(ELSEWHERE)
    refused = machine.refusal(lambda: machine.provider.clean_up(machine.vm))
    assert (refused.kind, "worker-7.example.com" in refused.message) == ("busy", True)
    assert far.token in refused.hint
    assert machine.names() == [far.token]
    assert len(machine.provider.clean_up(machine.vm, dead=[far.attempt])) == 1
    committed = machine.snapshot(ELSEWHERE)
    assert len(machine.provider.clean_up(machine.vm, held_by=[committed.attempt])) == 1
    assert machine.names() == []


def test_job_is_undone_wherever_it_worked(machine: Machine) -> None:
    other, job = machine.snapshot(DEAD), machine.snapshot(ELSEWHERE)
    (said,) = machine.provider.undo(job.job_id)
    assert job.token in said
    assert machine.names() == [other.token]
    assert machine.provider.undo(job.job_id) == []


def test_snapshot_of_the_vm_that_this_one_was_cloned_from_stays(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.snapshot(DEAD)
    original = snapshot_tree._read
    monkeypatch.setattr(snapshot_tree, "_read", lambda text: {**original(text), "vm": "another"})
    assert machine.provider.clean_up(machine.vm) == []
    assert len(machine.names()) == 1


def test_disks_that_a_lease_of_the_dead_still_holds_are_waited_for(
    machine: Machine, vcenter: VSphere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_snapshot, "LOOK_EVERY", 0.01)
    machine.snapshot(DEAD)
    vcenter.fault("RemoveSnapshot_Task", "task", fault="FileLocked", times=3)
    assert len(machine.provider.clean_up(machine.vm)) == 1
    machine.snapshot(DEAD)
    monkeypatch.setattr(leftovers, "LEASE_END", 0.0)
    vcenter.fault("RemoveSnapshot_Task", "task", fault="FileLocked", times=3)
    assert machine.refusal(lambda: machine.provider.clean_up(machine.vm)).kind == "busy"
    assert len(machine.names()) == 1


def test_preflight_tells_of_the_living_and_of_the_dead(machine: Machine) -> None:
    dead = machine.snapshot(DEAD)
    (warning,) = machine.provider.check_export(machine.vm, machine.vm.disks, "auto")
    assert (warning.severity, dead.job_id in warning.message) == ("warning", True)
    living = machine.snapshot(HERE)
    errors = [
        one for one in machine.provider.check_export(machine.vm, machine.vm.disks, "auto") if one.severity == "error"
    ]
    assert [(one.kind, living.job_id in one.message) for one in errors] == [("busy", True)]
