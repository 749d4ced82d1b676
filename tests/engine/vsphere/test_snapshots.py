# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots as `disk_snapshot` manages them: made, removed, gone back to, merged, and only ours pruned."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyVim.connect import SmartConnect

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ProviderSpec,
    SnapshotRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_snapshots import list_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import tasks
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.settings import VsphereSettings
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.tasks import run_task
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.tls import pinned
from rigs.ports import free_port
from rigs.vsphere import Disk, VSphere

pytestmark = pytest.mark.slow
MIB = 1024 * 1024
BEFORE, AFTER = b"before" * 100, b"after!" * 100


class Bench:
    """One VM, and the tasks on it."""

    def __init__(self, vcenter: VSphere, settings: dict[str, Any], name: str, **hardware: Any) -> None:
        self.vcenter, self.name, self.settings = vcenter, name, settings
        self.spec = ProviderSpec("vsphere", settings)
        disks = hardware.pop("disks", [Disk(BEFORE, size=MIB)])
        self.reference = vcenter.make_vm(name, disks, **hardware)

    def task(self, state: str = "present", check_mode: bool = False, **wishes: Any) -> dict[str, Any]:
        whole = {"name": "", "quiesce": "auto", "memory": False, "method": "auto", "keep": None, "timeout": 60.0}
        request = SnapshotRequest(provider=self.spec, vm=self.name, state=state, **{**whole, **wishes})
        return manage_snapshots(request, check_mode)

    def listed(self, name: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = list_snapshots(self.spec, self.name, name)["snapshots"]
        return found

    def names(self) -> list[str]:
        return [one["name"] for one in self.listed()]

    def foreign(self, name: str, **more: Any) -> None:
        """One that somebody else made, in the vSphere Client."""
        given = {"description": "", "memory": False, "quiesce": False, **more}
        service = SmartConnect(**self.vcenter.connection(), sslContext=pinned(self.vcenter.thumbprint))
        found = service.RetrieveContent().searchIndex.FindByInventoryPath(f"DC0/vm/{self.name}")
        task = found.CreateSnapshot_Task(name, given["description"], given["memory"], given["quiesce"])
        assert task, "the simulator does it at once"

    def guest_has(self, data: bytes) -> bool:
        return self.vcenter.disk_bytes(self.reference)[: len(data)] == data


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(vcenter: VSphere, settings: dict[str, Any], request: pytest.FixtureRequest) -> MakeBench:
    made = []

    def make(**hardware: Any) -> Bench:
        made.append(request.node.name)
        return Bench(vcenter, settings, f"s{abs(hash(request.node.name)) % 10**8}-{len(made)}", **hardware)

    return make


def failure(act: Callable[[], object]) -> VmferryError:
    with pytest.raises(VmferryError) as failed:
        act()
    return failed.value


def test_snapshot_is_made_once_and_holds_what_was_there(bench: MakeBench) -> None:
    vm = bench(running=True)
    made = vm.task(name="before-upgrade")
    assert (made["changed"], made["warnings"]) == (True, [])
    snapshot = made["snapshot"]
    assert (snapshot["name"], snapshot["ours"], snapshot["current"], snapshot["memory"]) == (
        "before-upgrade",
        True,
        True,
        False,
    )
    assert (snapshot["power_state"], snapshot["consistency"]) == ("powered_on", "quiesced")
    assert (snapshot["method"], snapshot["parent"], snapshot["job"]) == ("external", "", made["job"]["id"])
    assert [disk["name"] for disk in snapshot["disks"]] == ["scsi0:0"]
    assert snapshot["disks"][0]["image"].startswith("[LocalDS_0]")
    again = vm.task(name="before-upgrade")
    assert (again["changed"], again["snapshot"]["created"]) == (False, snapshot["created"])
    assert vm.names() == ["before-upgrade"]


def test_disks_go_back_to_what_they_were(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench()
    vm.task(name="then")
    vcenter.write(vm.reference, 0, 0, AFTER)
    assert vm.guest_has(AFTER)
    reverted = vm.task("reverted", name="then")
    assert (reverted["changed"], reverted["snapshot"]["name"]) == (True, "then")
    assert vm.guest_has(BEFORE)


def test_removal_keeps_what_was_written_since(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench(running=True)
    vm.task(name="then")
    vcenter.write(vm.reference, 0, 0, AFTER)
    gone = vm.task("absent", name="then")
    assert (gone["changed"], gone["removed"], gone["snapshots"]) == (True, ["then"], [])
    assert vm.guest_has(AFTER)
    assert vm.task("absent", name="then")["changed"] is False


def test_one_with_memory_is_never_quiesced_and_has_the_vm_running_again(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench(running=True)
    snapshot = vm.task(name="alive", memory=True, quiesce="required")["snapshot"]
    assert (snapshot["memory"], snapshot["consistency"], snapshot["power_state"]) == (
        True,
        "crash_consistent",
        "powered_on",
    )
    off = vm.task(name="disks")["snapshot"]
    assert (off["memory"], off["parent"]) == (False, "alive")


def test_of_a_vm_that_is_off_nothing_is_quiesced(bench: MakeBench) -> None:
    made = bench().task(name="off", quiesce="required", memory=True)
    snapshot = made["snapshot"]
    assert (snapshot["power_state"], snapshot["consistency"], snapshot["memory"]) == ("powered_off",) * 2 + (False,)
    assert made["warnings"] == []


def test_without_tools_it_is_crash_consistent_or_refused(vcenter: VSphere, bench: MakeBench) -> None:
    vcenter.settings(tools_running=False)
    vm = bench(running=True)
    weak = vm.task(name="weak")
    assert weak["snapshot"]["consistency"] == "crash_consistent"
    assert "VMware Tools do not run" in weak["warnings"][0]
    assert vm.task(name="unasked", quiesce="never")["warnings"] == []
    refused = failure(lambda: vm.task(name="strong", quiesce="required"))
    assert refused.kind == "unsupported"
    assert vm.names() == ["weak", "unasked"]


def test_a_guest_that_cannot_be_quiesced_is_told_or_refused(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench(running=True)
    vcenter.fault("CreateSnapshot_Task", "task", fault="ApplicationQuiesceFault")
    weak = vm.task(name="weak")
    assert weak["snapshot"]["consistency"] == "crash_consistent"
    assert "was not quiesced" in weak["warnings"][0]
    vcenter.fault("CreateSnapshot_Task", "task", fault="ApplicationQuiesceFault", times=-1)
    refused = failure(lambda: vm.task(name="strong", quiesce="required"))
    assert refused.kind == "conflict"
    assert "quiesce: never" in refused.hint
    assert vm.names() == ["weak"]


@pytest.mark.parametrize("fault", ["TooManySnapshotLevels", "SnapshotFault"])
def test_only_where_the_guest_could_not_be_quiesced_it_is_tried_without(
    vcenter: VSphere, bench: MakeBench, fault: str
) -> None:
    vm = bench(running=True)
    vcenter.fault("CreateSnapshot_Task", "task", fault=fault)
    failure(lambda: vm.task(name="a"))
    assert [call.options for call in vcenter.calls("CreateSnapshot_Task")] == ["quiesce"]


def test_snapshots_of_others_are_named_as_they_are(bench: MakeBench) -> None:
    vm = bench()
    kept = "VM Snapshot 11%2f13%2f2019, 100%25 {mine} {vm}"  # as vCenter keeps it
    wanted = "VM Snapshot 11/13/2019, 100% {mine} {vm}"
    vm.foreign(kept)
    vm.task(name="above")
    assert vm.names() == [wanted, "above"]
    assert [one["children"] for one in vm.listed(wanted)] == [["above"]]
    assert vm.task(name=wanted)["changed"] is False
    assert vm.task("reverted", name=wanted, check_mode=True)["plan"]["revert"] == wanted
    assert vm.task("absent", name=wanted)["removed"] == [wanted]
    assert vm.task("absent", name=wanted)["changed"] is False
    assert failure(lambda: vm.task("reverted", name=wanted)).kind == "not_found"
    assert failure(lambda: vm.task(name="11/13")).kind == "invalid_config"


def test_only_ours_are_counted_and_pruned(bench: MakeBench) -> None:
    vm = bench()
    vm.foreign("theirs")
    vm.foreign("like ours", description="Made by vmferry.migrate. [vmferry vm=another job=x]")
    for name in ("one", "two", "three"):
        vm.task(name=name, keep=2)
    assert vm.names() == ["theirs", "like ours", "two", "three"]
    assert [one["ours"] for one in vm.listed()] == [False, False, True, True]
    assert vm.task("absent", keep=1)["removed"] == ["two"]
    assert vm.task("absent")["removed"] == ["three"]
    assert vm.names() == ["theirs", "like ours"]
    assert vm.task("absent", name="theirs")["removed"] == ["theirs"]


def test_consolidation_merges_ours_and_what_was_left_behind(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench(running=True)
    vm.foreign("theirs")
    vm.task(name="ours")
    vcenter.need_consolidation(vm.reference)
    vcenter.forget_calls()
    planned = vm.task("consolidated", check_mode=True)
    assert (planned["changed"], planned["plan"]["consolidate"], planned["plan"]["remove"]) == (True, True, ["ours"])
    assert not vcenter.calls("ConsolidateVMDisks_Task")
    done = vm.task("consolidated")
    assert (done["changed"], done["removed"], vm.names()) == (True, ["ours"], ["theirs"])
    assert vm.reference not in vcenter.leftovers().consolidation
    assert vm.name not in vcenter.leftovers().consolidation
    assert len(vcenter.calls("ConsolidateVMDisks_Task")) == 1
    again = vm.task("consolidated")
    assert (again["changed"], len(vcenter.calls("ConsolidateVMDisks_Task"))) == (False, 1)


def test_removal_that_left_disks_behind_is_told_with_what_to_do(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench(running=True)
    vm.task(name="then")
    vcenter.fault("RemoveSnapshot_Task", "unconsolidated")
    warned = vm.task("absent", name="then")["warnings"]
    assert "still need consolidation" in warned[0]
    assert "state: consolidated" in warned[0]
    assert vm.task("consolidated")["changed"] is True


def test_check_mode_tells_the_plan_and_changes_nothing(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench(running=True)
    vm.task(name="old")
    before = vcenter.leftovers()
    planned = vm.task(name="new", keep=1, check_mode=True)
    assert planned["plan"] == {
        "create": "new",
        "method": "external",
        "remove": ["old"],
        "revert": "",
        "consolidate": False,
    }
    assert (planned["changed"], planned["findings"]) == (True, [])
    assert vm.task("reverted", name="old", check_mode=True)["plan"]["revert"] == "old"
    assert vcenter.leftovers().snapshots == before.snapshots


def test_what_vsphere_cannot_do_is_found_before(bench: MakeBench) -> None:
    vm = bench(disks=[Disk(size=MIB), Disk(size=MIB, mode="independent_persistent")], running=True)
    with_memory = vm.task(name="a", memory=True, check_mode=True)
    assert [(one["severity"], one["kind"]) for one in with_memory["findings"]] == [("error", "unsupported")]
    without = vm.task(name="a", check_mode=True)
    assert [one["severity"] for one in without["findings"]] == ["warning"]
    assert "scsi0:1" in without["findings"][0]["message"]
    assert failure(lambda: vm.task(name="a", method="internal")).kind == "unsupported"
    assert failure(lambda: vm.task(name="n" * 81)).kind == "invalid_config"
    assert failure(lambda: vm.task(name="100%")).kind == "invalid_config"
    assert [disk["name"] for disk in vm.task(name="b")["snapshot"]["disks"]] == ["scsi0:0"]
    assert failure(lambda: bench(template=True).task(name="a")).kind == "unsupported"


def test_of_two_with_one_name_none_is_removed(bench: MakeBench) -> None:
    vm = bench()
    vm.foreign("twin")
    vm.foreign("twin")
    refused = failure(lambda: vm.task("absent", name="twin"))
    assert (refused.kind, "2 snapshots called twin" in refused.message) == ("conflict", True)
    assert vm.names() == ["twin", "twin"]


def test_tree_is_told_with_who_stands_on_whom(bench: MakeBench) -> None:
    vm = bench()
    vm.task(name="root")
    vm.task(name="left")
    vm.task("reverted", name="root")
    vm.task(name="right")
    found = {one["name"]: one for one in vm.listed()}
    assert sorted(found["root"]["children"]) == ["left", "right"]
    assert (found["left"]["parent"], found["right"]["parent"]) == ("root", "root")
    assert [name for name, one in found.items() if one["current"]] == ["right"]
    assert [one["name"] for one in vm.listed("left")] == ["left"]


def test_a_task_that_hangs_is_cancelled_in_time(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench()
    vcenter.fault("CreateSnapshot_Task", "hang")
    late = failure(lambda: vm.task(name="a", timeout=15.0))
    assert (late.kind, "and was cancelled" in late.message) == ("timeout", True)
    assert (vm.names(), vcenter.leftovers().running_tasks) == ([], ())


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("ConcurrentAccess", "busy"),
        ("NoDiskSpace", "no_space"),
        ("InsufficientResourcesFault", "quota"),
        ("FileLocked", "busy"),
        ("RestrictedVersion", "unsupported"),
        ("HostCommunication", "network"),
        ("InvalidState", "conflict"),
    ],
)
def test_faults_of_tasks_have_kinds(vcenter: VSphere, bench: MakeBench, fault: str, kind: str) -> None:
    vm = bench()
    vcenter.fault("CreateSnapshot_Task", "task", fault=fault)
    failed = failure(lambda: vm.task(name="a"))
    assert failed.kind == kind
    assert failed.message.startswith(f"Making the snapshot a of {vm.name} failed: ")


def test_session_that_ends_while_a_task_is_waited_for_costs_nothing(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench()
    vcenter.settings(calls_per_session=4)
    assert vm.task(name="a")["changed"] is True
    assert len(vcenter.calls("CreateSnapshot_Task")) == 1
    vcenter.settings(calls_per_session=0)
    assert vm.names() == ["a"]


def test_vcenter_that_starts_again_while_a_task_is_waited_for_costs_nothing(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench()
    vcenter.fault("CreatePropertyCollector", "drop", times=2)  # of the first look, and of its repetition
    assert vm.task(name="a")["changed"] is True
    assert len(vcenter.calls("CreateSnapshot_Task")) == 1


def test_a_lost_answer_does_not_make_a_second_one(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench()
    vcenter.fault("CreateSnapshot_Task", "lose_answer")
    lost = failure(lambda: vm.task(name="a"))
    assert (lost.kind, lost.retryable) == ("network", False)
    assert "may have done it" in lost.message
    assert "Look at the VM" in lost.hint
    assert vm.names() == ["a"]
    assert vm.task(name="a")["changed"] is False


def test_a_task_that_vcenter_forgot_may_have_been_done(vcenter: VSphere, bench: MakeBench) -> None:
    vm = bench()
    vcenter.fault("CreateFilter", "fault", fault="ManagedObjectNotFound")
    unknown = failure(lambda: vm.task(name="a"))
    assert re.search(r"forgotten its task-\S+, so whether it was done is not known", unknown.message)
    assert ("Look at the VM" in unknown.hint, unknown.retryable) == (True, False)
    assert vm.names() == ["a"]


def test_a_server_that_nobody_could_ask_has_done_nothing(settings: dict[str, Any]) -> None:
    begun = Session(VsphereSettings.from_options({**settings, "port": free_port()}))
    refused = failure(lambda: run_task(begun, "Working", lambda _content: None, 1.0))
    assert (refused.retryable, "may have" in refused.message) == (True, False)


def test_a_server_that_does_not_come_back_is_not_waited_for_until_the_end_of_days(
    vcenter: VSphere, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "AWAY_LIMIT", 0.5)
    monkeypatch.setattr(tasks, "RESTART", 0.05)
    bench = Bench(vcenter, settings, "away")
    session = Session(VsphereSettings.from_options(settings))
    machine = session.managed("VirtualMachine", bench.reference)
    vcenter.fault("CreateSnapshot_Task", "hang")
    vcenter.fault("CreatePropertyCollector", "drop", times=-1)
    started = time.monotonic()
    gone = failure(
        lambda: run_task(session, "Working", lambda _content: machine.CreateSnapshot_Task("a", "", False, False), 300.0)
    )
    assert (gone.kind, time.monotonic() - started < 60) == ("network", True)
    vcenter.heal()
    vcenter.restart()
    session.close()
