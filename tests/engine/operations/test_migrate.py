# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM goes from provider to provider: in an order that loses nothing, and with nothing left where it fails."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memory_ends import DATA, IDENTITY, SYSTEM, UUID, VM, Ends

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.finding import Finding
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import NicSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestTree, leaf_digests


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    return Ends(tmp_path / "state")


def refused(ends: Ends, kind: str, words: str, **asked: Any) -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        ends.migrate(**asked)
    assert (caught.value.kind, words in str(caught.value)) == (kind, True), str(caught.value)
    return caught.value


def fail_with(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


def root_of(data: bytes) -> str:
    tree = DigestTree(len(data))
    digests = leaf_digests(bytearray(data), len(data))
    for chunk in range(0, len(digests), 64):
        tree.add(chunk // 64, {at: found for at, found in enumerate(digests[chunk : chunk + 64]) if found})
    return tree.root()


def in_order(ends: Ends, *events: str) -> bool:
    found = [event for event in ends.events if event in events]
    return list(dict.fromkeys(found)) == list(events)


def test_every_byte_arrives_and_the_digests_are_those_that_an_export_would_have(ends: Ends) -> None:
    result = ends.migrate()
    assert [bytes(sink.data) for sink in ends.sinks] == [SYSTEM, DATA]
    told = {disk["name"]: disk for disk in result["migration"]["disks"]}
    assert [told["vda"]["digest_root"], told["vdb"]["digest_root"]] == [root_of(SYSTEM), root_of(DATA)]
    assert (result["changed"], result["vm"]["name"], result["source"]["id"]) == (True, "web02", UUID)


def test_zeros_are_neither_read_nor_written_where_the_new_disk_has_them(ends: Ends) -> None:
    told = ends.migrate()["migration"]["disks"][1]
    assert ends.sinks[1].zeroed == []
    assert (told["bytes_read"], told["bytes_written"]) == (2 * LEAF, 2 * LEAF)


def test_zeros_are_written_where_the_new_disk_may_hold_something_else(ends: Ends) -> None:
    ends.reads_zero = False
    ends.migrate()
    assert bytes(ends.sinks[1].data) == DATA
    assert ends.sinks[1].zeroed


def test_disks_that_are_slow_streams_are_read_side_by_side(ends: Ends) -> None:
    together = threading.Barrier(2)
    met: set[str] = set()
    meeting = threading.Lock()

    def meet(disk: str) -> None:
        with meeting:
            is_first = disk not in met
            met.add(disk)
        if is_first:
            together.wait(60.0)  # seconds; broken where only one of them is read

    ends.at_once, ends.before_read = 2, meet
    told = ends.migrate(transfer={"parallel": 4})["migration"]["disks"]
    assert [bytes(sink.data) for sink in ends.sinks] == [SYSTEM, DATA]
    assert [disk["digest_root"] for disk in told] == [root_of(SYSTEM), root_of(DATA)]


@pytest.mark.parametrize(("at_once", "parallel"), [(1, 4), (2, 1)])
def test_no_more_disks_are_read_at_once_than_is_best_and_than_there_are_readers(
    ends: Ends, at_once: int, parallel: int
) -> None:
    begun: list[str] = []
    ends.at_once, ends.before_read = at_once, begun.append
    ends.migrate(transfer={"parallel": parallel})
    assert begun == sorted(begun), "the second one begins behind the first"


def test_a_disk_that_breaks_ends_the_one_beside_it_and_nothing_is_left(ends: Ends) -> None:
    def break_one(disk: str) -> None:
        if disk == "vdb":
            raise VmferryError("permission_denied", "vdb is not to be read.")

    ends.at_once, ends.before_read = 2, break_one
    refused(ends, "permission_denied", "vdb is not to be read")
    assert in_order(ends, "frozen", "undone", "thawed")
    assert "committed" not in ends.events


def test_the_source_is_let_go_before_what_was_written_is_read_back_and_that_before_there_is_a_vm(ends: Ends) -> None:
    ends.migrate()
    order = ("source cleaned up", "frozen", "written", "confirmed", "thawed", "read back", "committed")
    assert in_order(ends, *order)


@pytest.mark.parametrize("disk", [0, 1])
def test_a_disk_that_did_not_keep_what_was_written_becomes_no_vm(ends: Ends, disk: int) -> None:
    def rot() -> None:
        ends.sinks[disk].data[LEAF + 5] ^= 1

    ends.hooks["read back"] = rot
    error = refused(ends, "checksum_mismatch", f"disk-{disk} of web02")
    assert f"bytes {LEAF} to {2 * LEAF}" in error.message
    assert in_order(ends, "thawed", "read back", "undone")
    assert "committed" not in ends.events


@pytest.mark.parametrize("reads_zero", [True, False])
def test_a_disk_that_is_rounded_up_is_proved_as_far_as_the_guests_data_goes(ends: Ends, reads_zero: bool) -> None:
    ends.sector, ends.reads_zero = 4096, reads_zero
    assert ends.migrate()["migration"]["verified"] == "content"
    assert [bytes(sink.data) for sink in ends.sinks] == [SYSTEM + bytes(4096 - 512), DATA]


def test_what_a_disk_has_beyond_the_guests_data_must_be_zeros(ends: Ends) -> None:
    ends.sector = 3 << 20

    def rot() -> None:
        ends.sinks[0].data[(2 << 20) + 3] = 1

    ends.hooks["read back"] = rot
    error = refused(
        ends, "checksum_mismatch", f"disk-0 of web02 does not end with zeros behind its {len(SYSTEM)} bytes"
    )
    assert "no VM was made" in error.hint
    assert "committed" not in ends.events


def test_a_disk_that_is_too_short_is_not_what_was_read(ends: Ends) -> None:
    def shrink() -> None:
        del ends.sinks[0].data[LEAF:]

    ends.hooks["read back"] = shrink
    refused(ends, "checksum_mismatch", "65536 bytes")


def test_without_verification_nothing_is_read_back(ends: Ends) -> None:
    told = ends.migrate(verify="none")["migration"]
    assert "read back" not in ends.events
    assert (told["verified"], {disk["digest_root"] for disk in told["disks"]}) == ("none", {""})
    assert [bytes(sink.data) for sink in ends.sinks] == [SYSTEM, DATA]


def test_a_point_in_time_that_did_not_hold_becomes_no_vm(ends: Ends) -> None:
    ends.hooks["confirmed"] = fail_with(VmferryError("conflict", "It was started."))
    refused(ends, "conflict", "It was started")
    assert in_order(ends, "written", "undone", "thawed")
    assert "committed" not in ends.events


@pytest.mark.parametrize("event", ["written", "read back", "committed"])
def test_a_failure_leaves_nothing_at_either_end(ends: Ends, event: str) -> None:
    ends.hooks[event] = fail_with(VmferryError("no_space", "It is full."))
    refused(ends, "no_space", "It is full")
    assert {"undone", "thawed"} <= set(ends.events)
    assert ends.present is None
    record = json.loads((ends.state / "jobs" / ends.job.id / "record.json").read_text())  # type: ignore[union-attr]
    assert (record["phase"], record["kind"], record["error"]["kind"]) == ("failed", "migrate", "no_space")


def test_a_cancelled_migration_leaves_nothing_at_either_end(ends: Ends) -> None:
    ends.hooks["written"] = lambda: ends.job.flow.stop(VmferryError("cancelled", "Enough."))  # type: ignore[union-attr]
    refused(ends, "cancelled", "Enough")
    assert {"undone", "thawed"} <= set(ends.events)
    assert "committed" not in ends.events


def test_a_point_in_time_that_cannot_be_removed_is_told_and_costs_nobody_the_copy(ends: Ends) -> None:
    ends.hooks["thawed"] = fail_with(VmferryError("network", "libvirtd is gone."))
    result = ends.migrate()
    assert "committed" in ends.events
    assert any("point in time of web01 may not be removed" in text for text in result["warnings"])


def test_a_second_run_changes_nothing_whatever_became_of_either(ends: Ends) -> None:
    ends.migrate()
    ends.events.clear()
    result = ends.migrate()
    assert (result["changed"], result["vm"]["name"], "migration" in result) == (False, "web02", False)
    assert {"frozen", "written", "source cleaned up"}.isdisjoint(ends.events)


def test_a_vm_that_was_made_in_another_way_is_no_success(ends: Ends) -> None:
    ends.migrate()
    ends.otherwise = "It is an OVA, and not qcow2."
    refused(ends, "conflict", "It is an OVA")


def test_a_vm_that_was_made_and_is_off_is_started_where_that_is_asked(ends: Ends) -> None:
    ends.migrate()
    asked: dict[str, Any] = {"placement": Placement("web02", power_on=True)}
    assert ends.migrate(check_mode=True, **asked)["changed"]
    assert "started" not in ends.events
    result = ends.migrate(**asked)
    assert (result["changed"], result["vm"]["power_state"]) == (True, "powered_on")


def test_a_vm_that_is_made_while_the_job_waits_for_its_turn_is_not_made_twice(ends: Ends) -> None:
    looks: list[None] = []

    def made_by_another() -> None:
        looks.append(None)
        if len(looks) == 2:
            ends.present = (replace(VM, name="web02", id="new"), IDENTITY)

    ends.hooks["described"] = made_by_another
    assert not ends.migrate()["changed"]
    assert "frozen" not in ends.events


def test_without_a_name_the_new_vm_is_called_as_the_old_one(ends: Ends) -> None:
    assert ends.migrate(placement=Placement(""))["vm"]["name"] == "web01"


def test_a_vm_is_not_migrated_onto_itself(ends: Ends) -> None:
    ends.present = (VM, "")
    error = refused(ends, "conflict", "is the VM itself", placement=Placement(""))
    assert "another name" in error.hint


def test_only_chosen_disks_go_along(ends: Ends) -> None:
    ends.migrate(disks=("vdb",))
    assert [disk.name for disk in ends.new.disks] == ["vdb"]  # type: ignore[union-attr]
    assert [bytes(sink.data) for sink in ends.sinks] == [DATA]


def test_drives_can_be_left_behind(ends: Ends) -> None:
    ends.vm = replace(VM, details={"cdroms": [{"name": "sda"}], "floppies": [{"name": "fda"}]})
    ends.migrate(detach=("cdrom",))
    assert ends.new.drives == (("floppy", "fda"),)  # type: ignore[union-attr]


def test_check_mode_tells_what_stands_in_the_way_at_both_ends_and_changes_nothing(ends: Ends) -> None:
    ends.findings = {
        "export": [Finding("error", "It is busy.", kind="busy")],
        "import": [Finding("error", "It is full.", kind="no_space")],
    }
    ends.reads_back = False
    found = ends.migrate(check_mode=True, disks=("vdb", "vdz"), verify="content")
    assert [one["kind"] for one in found["findings"]] == ["not_found", "unsupported", "busy", "no_space"]
    assert not found["changed"]
    assert {"frozen", "written", "source cleaned up", "destination cleaned up"}.isdisjoint(ends.events)
    assert not ends.state.exists()


def test_check_mode_plans_what_is_allocated(ends: Ends) -> None:
    plan = ends.migrate(check_mode=True)["plan"]
    assert [disk["bytes_to_read"] for disk in plan["disks"]] == [len(SYSTEM), 2 * LEAF]
    assert plan["bytes_to_read"] == len(SYSTEM) + 2 * LEAF


def test_what_cannot_be_read_back_is_refused_before_the_first_byte_and_read_back_by_nobody_else(ends: Ends) -> None:
    ends.reads_back = False
    error = refused(ends, "unsupported", "cannot be read back", verify="content")
    assert ("verify" in error.hint, "frozen" in ends.events) == (True, False)
    assert ends.migrate()["migration"]["verified"] == "none"
    assert "read back" not in ends.events


def test_two_ends_at_one_hypervisor_take_one_of_its_slots(ends: Ends) -> None:
    ends.accounts = ("here", "here")
    assert ends.migrate(transfer={"max_duration": 20.0})["changed"]  # with two it would wait for itself


@pytest.mark.parametrize("accounts", [("here", "there"), ("there", "here")])
def test_slots_are_taken_in_one_order_whichever_way_a_vm_goes(
    ends: Ends, accounts: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(RunningJob, "wait_for_slot", lambda job, account: taken.append(account.account))
    ends.accounts = accounts
    ends.migrate()
    assert taken == ["here", "there"]


def test_the_limit_of_the_bandwidth_counts_what_is_read_at_the_source(ends: Ends) -> None:
    started = time.monotonic()
    ends.migrate(transfer={"bandwidth_limit": "400KiB/s", "bandwidth_burst": LEAF}, verify="none")
    assert time.monotonic() - started > 0.5  # of 320 KiB, 64 of which go at once


def test_images_say_nothing_of_firmware_and_networks_so_their_disk_and_the_task_do(ends: Ends) -> None:
    ends.vm = replace(VM, firmware="unknown", nics=(), details={"libvirt": {"assumed": ["firmware"]}})
    ends.migrate()
    assert "checked bios" in ends.events  # anew, once the disk was looked into
    new: Any = ends.new
    assert (new.firmware, [(nic.network, nic.model) for nic in new.nics]) == ("bios", [("default", "virtio")])
    ends.present = None
    ends.migrate(networks=("lab", "dmz"))
    assert [nic.network for nic in ends.new.nics] == ["lab", "dmz"]  # type: ignore[union-attr]


def test_what_the_destination_has_to_say_of_a_firmware_that_was_found_late_counts(ends: Ends) -> None:
    ends.vm = replace(VM, firmware="unknown")
    late = [Finding("error", "No such firmware.", kind="unsupported")]
    ends.hooks["frozen"] = lambda: ends.findings.update({"import": late})
    refused(ends, "unsupported", "No such firmware")
    assert ("thawed" in ends.events, "written" in ends.events) == (True, False)


def test_a_vm_that_has_network_cards_is_given_no_others(ends: Ends) -> None:
    ends.vm = replace(VM, nics=(NicSpec("nic-0", "", "lab"),))
    error = refused(ends, "invalid_config", "hardware.networks", networks=("dmz",))
    assert "network_map" in error.hint
