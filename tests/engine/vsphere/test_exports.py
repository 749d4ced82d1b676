# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Full exports from vSphere: every byte, of VMs that are off and that run, and nothing is left on the server."""

from __future__ import annotations

import json
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPResponse
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from contract.providers.dying import die_at, start_server

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    JobRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import (
    disk_servers,
    disk_stream,
    export_session,
    lease,
    snapshots,
    tasks,
    temporary_snapshot,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import owner
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow, Stopped
from rigs.vsphere import Disk, VSphere

pytestmark = pytest.mark.slow
MIB = 1 << 20
NOISE = Random(11).randbytes(MIB)
SYSTEM = NOISE + bytes(3 * MIB) + NOISE[:71_680] + bytes(MIB)
DATA = bytes(MIB) + NOISE[5120:]  # of a size that is no multiple of anything but what the API counts in
_numbers = count(1)


@dataclass
class Site:
    """The rig, a store on a path, and exports between them."""

    vcenter: VSphere
    settings: dict[str, Any]
    folder: Path

    def make_vm(self, *disks: Any, **options: Any) -> str:
        name = f"vm-to-export-{next(_numbers)}"
        self.vcenter.make_vm(name, disks or (SYSTEM,), **options)
        return name

    def request(self, vm: str, **options: Any) -> ExportRequest:
        transfer = TransferOptions(state_dir=str(self.folder / "state"), max_retries=2, idle_timeout=60.0)
        # Of increments, and of what they are read by, test_increments.py tells.
        given = {"provider": ProviderSpec("vsphere", self.settings), "transfer": transfer, "track_changes": False}
        return ExportRequest(vm=vm, store=StoreSpec((self.folder / "store").as_uri(), {}), **{**given, **options})

    def export(self, vm: str, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        (self.folder / "store").mkdir(exist_ok=True)
        return export_vm(self.request(vm, **options), check_mode)

    def refused(self, vm: str, **options: Any) -> VmferryError:
        with pytest.raises(VmferryError) as refused:
            self.export(vm, **options)
        return refused.value

    def disk(self, result: dict[str, Any], number: int = 0) -> bytes:
        """As qemu-img reads it."""
        stored = Path(result["export"]["disks"][number]["url"].removeprefix("file://"))
        target = self.folder / "read"
        kind = {"vmdk": "vmdk", "raw": "raw"}.get(stored.suffix[1:], "qcow2")
        subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", stored, target], check=True)
        return target.read_bytes()

    def native(self, result: dict[str, Any]) -> dict[str, bytes]:
        folder = Path(result["export"]["url"].removeprefix("file://")) / "native"
        return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}

    def in_store(self) -> list[Path]:
        return sorted(path for path in (self.folder / "store").rglob("*") if path.is_file())

    def assert_nothing_left(self) -> None:
        left = self.vcenter.leftovers()
        assert (dict(left.snapshots), dict(left.leases), left.sessions) == ({}, {}, 0)


@pytest.fixture
def site(vcenter: VSphere, settings: dict[str, Any], tmp_path: Path) -> Iterator[Site]:
    made = Site(vcenter, settings, tmp_path)
    yield made
    vcenter.heal()
    vcenter.settings(stream="esxi", lease_timeout=300, tools_running=True)
    made.assert_nothing_left()


def outcomes(vcenter: VSphere, run: Callable[[], object]) -> list[str]:
    """How the leases of a run ended."""
    before = vcenter.leases()
    run()
    return [how for name, how in vcenter.leases().items() if name not in before]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Have something happen when an export comes to one of its failpoints."""

    def plan(name: str, happens: Callable[[], object]) -> None:
        monkeypatch.setattr(export_session, "failpoint", lambda passed: happens() if passed == name else None)

    return plan


def test_vm_that_is_off_is_exported_without_a_snapshot(site: Site) -> None:
    vm = site.make_vm(SYSTEM, DATA, firmware="efi", nvram=b"variables")
    result: dict[str, Any] = {}
    assert outcomes(site.vcenter, lambda: result.update(site.export(vm))) == ["completed"]
    assert (site.disk(result), site.disk(result, 1)) == (SYSTEM, DATA)
    assert result["export"]["consistency"] == "powered_off"
    native = site.native(result)
    assert native["vm.nvram"] == b"variables"
    assert vm.encode() in native["vm.ovf"]
    assert site.vcenter.calls("CreateSnapshot_Task") == []
    assert result["warnings"] == []


def test_vm_that_runs_is_exported_as_it_was_at_one_moment(
    site: Site, at: Callable[[str, Callable[[], object]], None]
) -> None:
    vm = site.make_vm(SYSTEM, DATA, running=True)
    at("snapshot_made", lambda: [site.vcenter.write(vm, disk, 4096, b"later" * 5000) for disk in (0, 1)])
    result = site.export(vm)
    assert (site.disk(result), site.disk(result, 1)) == (SYSTEM, DATA)
    assert site.vcenter.disk_bytes(vm)[4096:4101] == b"later"
    assert result["export"]["consistency"] == "quiesced"
    assert [call.options for call in site.vcenter.calls("CreateSnapshot_Task")] == ["quiesce"]
    assert result["warnings"] == []


@pytest.mark.parametrize(
    ("wanted", "tools", "quiesced", "reached", "said"),
    [
        ("auto", False, "", "crash_consistent", "does not run VMware Tools"),
        ("crash_consistent", True, "", "crash_consistent", ""),
        ("quiesced", True, "quiesce", "quiesced", ""),
    ],
)
def test_guest_is_quiesced_as_far_as_that_is_asked_for_and_possible(
    site: Site, wanted: Any, tools: bool, quiesced: str, reached: str, said: str
) -> None:
    site.vcenter.settings(tools_running=tools)
    vm = site.make_vm(DATA, running=True)
    result = site.export(vm, consistency=wanted)
    assert [call.options for call in site.vcenter.calls("CreateSnapshot_Task")] == [quiesced]
    assert result["export"]["consistency"] == reached
    assert len(result["warnings"]) == bool(said)
    assert said in "".join(result["warnings"])


def test_guest_that_cannot_be_quiesced_is_exported_otherwise_or_refused(site: Site) -> None:
    vm = site.make_vm(DATA, running=True)
    site.vcenter.fault("CreateSnapshot_Task", "task", fault="ApplicationQuiesceFault")
    result = site.export(vm)
    assert result["export"]["consistency"] == "crash_consistent"
    assert "was not quiesced" in "".join(result["warnings"])
    site.vcenter.fault("CreateSnapshot_Task", "task", fault="ApplicationQuiesceFault")
    assert site.refused(vm, consistency="quiesced", mode="full").kind == "conflict"


def test_state_that_is_not_the_vms_is_refused(site: Site) -> None:
    running = site.make_vm(DATA, running=True)
    refused = site.refused(running, consistency="powered_off")
    assert (refused.kind, "Shut it down" in refused.hint) == ("conflict", True)
    assert site.vcenter.calls("CreateSnapshot_Task") == []


def test_disks_may_be_left_out(site: Site) -> None:
    vm = site.make_vm(SYSTEM, DATA)
    result = site.export(vm, disks=("disk-1",))
    assert [disk["id"] for disk in result["export"]["disks"]] == ["disk-1"]
    assert site.disk(result) == DATA
    assert len([call for call in site.vcenter.calls("GET /nfc/") if "vmdk" in call.object]) == 1


@pytest.mark.parametrize("format", ["vmdk", "raw"])
def test_disks_are_written_in_any_format(site: Site, format: Any) -> None:
    assert site.disk(site.export(site.make_vm(SYSTEM), format=format)) == SYSTEM


def test_appliance_holds_the_disks(site: Site) -> None:
    result = site.export(site.make_vm(SYSTEM, DATA, running=True), format="ova")
    archive = next(path for path in site.in_store() if path.suffix == ".ova")
    with tarfile.open(archive) as members:
        members.extractall(site.folder / "ova", filter="data")
    disks = sorted((site.folder / "ova").glob("*.vmdk"))
    for disk, wanted in zip(disks, (SYSTEM, DATA), strict=True):
        subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", disk, site.folder / "read"], check=True)
        assert (site.folder / "read").read_bytes() == wanted
    assert result["export"]["format"] == "ova"


def test_disk_that_another_program_would_send_is_read_too(site: Site) -> None:
    site.vcenter.settings(stream="qemu")
    assert site.disk(site.export(site.make_vm(SYSTEM))) == SYSTEM


def test_disk_of_zeros_is_exported(site: Site) -> None:
    assert site.disk(site.export(site.make_vm(Disk(size=3 * MIB)))) == bytes(3 * MIB)


def test_server_that_names_no_host_is_asked_itself(site: Site) -> None:
    site.vcenter.settings(star_hosts=True)
    try:
        assert site.disk(site.export(site.make_vm(DATA))) == DATA
    finally:
        site.vcenter.settings(star_hosts=False)


def test_hosts_serve_the_disks_and_are_trusted_by_what_vcenter_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_stream, "PAUSE", 0.01)
    with VSphere(disks_elsewhere=True, trusted_disks=False) as vcenter:
        settings: dict[str, Any] = {
            "hostname": f"{vcenter.host}:{vcenter.port}",
            "username": vcenter.user,
            "password": vcenter.password,
            "ca_path": str(vcenter.certificate),
        }
        vcenter.settings(host_name=f"esx1.nowhere.test:{vcenter.disk_port}")
        site = Site(vcenter, settings, tmp_path)
        vm = site.make_vm(DATA)
        refused = site.refused(vm)
        assert (refused.kind, "vsphere.host_map" in refused.hint) == ("network", True)
        settings["host_map"] = {"esx1.nowhere.test": "127.0.0.3"}
        assert site.disk(site.export(vm)) == DATA
        vcenter.settings(thumbprints=False)
        refused = site.refused(vm, mode="full")
        assert (refused.kind, refused.retryable, "vsphere.ca_path" in refused.hint) == ("network", False, True)
        site.assert_nothing_left()


# --- what goes wrong --------------------------------------------------------------------------------------------------


def gets(vcenter: VSphere) -> list[str]:
    return [call.ended for call in vcenter.calls("GET /nfc/")]


def test_line_that_breaks_is_taken_up_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_stream, "PAUSE", 0.01)
    vm = site.make_vm(SYSTEM)
    site.vcenter.fault("GET /nfc/", "truncate", bytes=500_000)
    site.vcenter.fault("GET /nfc/", "status", status=503)
    site.vcenter.fault("GET /nfc/", "truncate", bytes=900_000)
    assert site.disk(site.export(vm)) == SYSTEM
    assert len(gets(site.vcenter)) == 4
    assert gets(site.vcenter)[-1] == ""


def test_line_that_breaks_for_ever_ends_the_export_and_leaves_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_stream, "PAUSE", 0.01)
    vm = site.make_vm(SYSTEM, running=True)
    site.vcenter.fault("GET /nfc/", "truncate", bytes=500_000, times=-1)
    broken: list[VmferryError] = []
    assert outcomes(site.vcenter, lambda: broken.append(site.refused(vm))) == ["aborted"]
    assert (broken[0].kind, broken[0].retryable) == ("network", True)
    assert "scsi0:0" in broken[0].message
    assert len(gets(site.vcenter)) == disk_stream.ATTEMPTS
    site.vcenter.heal()
    assert site.disk(site.export(vm)) == SYSTEM


def test_disk_that_is_sent_otherwise_after_a_break_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = site.make_vm(SYSTEM)
    monkeypatch.setattr(disk_stream, "PAUSE", 0.01)
    site.vcenter.fault("GET /nfc/", "truncate", bytes=500_000)
    again = disk_stream.DiskStream._again

    def changed(stream: Any, *how: Any) -> None:
        site.vcenter.write(vm, 0, 0, bytes(4096))
        again(stream, *how)

    monkeypatch.setattr(disk_stream.DiskStream, "_again", changed)
    refused = site.refused(vm)
    assert (refused.kind, refused.retryable) == ("conflict", True)
    assert "otherwise than it was" in refused.message


def test_vcenter_that_starts_again_ends_the_export_and_leaves_nothing(
    site: Site, at: Callable[[str, Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_stream, "PAUSE", 0.01)
    monkeypatch.setattr(lease, "RENEW", 0.05)
    vm = site.make_vm(SYSTEM, running=True)
    at("lease_begun", site.vcenter.restart)
    broken = site.refused(vm)
    assert broken.retryable
    assert broken.kind in ("network", "timeout")


def test_disk_that_arrived_otherwise_than_it_was_sent_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = lease.Lease.manifest
    wrong = {"sha1": lambda told: ("00" * 20, told[1]), "size": lambda told: (told[0], told[1] + 1)}
    for lie in wrong.values():
        with monkeypatch.context() as patched:
            patched.setattr(
                lease.Lease,
                "manifest",
                lambda self, lie=lie: {key: lie(told) for key, told in manifest(self).items()},
            )
            refused = site.refused(site.make_vm(DATA))
        assert (refused.kind, "scsi0:0" in refused.message) == ("checksum_mismatch", True)


@pytest.mark.parametrize(
    ("on", "how"),
    [
        ("CreateSnapshot_Task", {"action": "lose_answer"}),
        ("ExportSnapshot", {"action": "fault", "fault": "FileLocked"}),
        ("ExportSnapshot", {"action": "lose_answer"}),
        ("HttpNfcLeaseComplete", {"action": "fault", "fault": "InvalidState"}),
    ],
)
def test_snapshot_of_an_export_that_fails_is_removed(site: Site, on: str, how: dict[str, Any]) -> None:
    vm = site.make_vm(DATA, running=True)
    site.vcenter.fault(on, **how)
    before = site.vcenter.leases()
    site.refused(vm)
    assert dict(site.vcenter.leftovers().snapshots) == {}
    if how["action"] == "lose_answer" and on == "ExportSnapshot":  # nobody knows its lease, which ends by itself
        site.vcenter.restart()
    assert "open" not in [state for name, state in site.vcenter.leases().items() if name not in before]
    assert site.disk(site.export(vm)) == DATA


def test_session_that_ends_meanwhile_is_begun_again(
    site: Site, at: Callable[[str, Callable[[], object]], None]
) -> None:
    vm = site.make_vm(SYSTEM, running=True)
    at("lease_begun", site.vcenter.expire_sessions)
    assert site.disk(site.export(vm)) == SYSTEM
    assert len(site.vcenter.calls("Login")) == 2


def test_stream_that_is_slow_ends_at_once_where_it_is_closed(
    site: Site, provider: VsphereProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = provider.describe(site.make_vm(NOISE))
    site.vcenter.fault("GET /nfc/", "slow", rate=20_000)
    ended: list[Any] = []

    def read(source: Any) -> None:
        try:
            source.read_into([(0, memoryview(bytearray(source.size)))])
        except VmferryError as error:
            ended.append(error.kind)

    job = Job("0" * 32, "0" * 8, "0" * 8)
    with provider.open_export(vm, vm.disks, "auto", job) as session:
        source = session.disks[0].source
        reader = threading.Thread(target=read, args=(source,))
        reader.start()
        deadline = time.monotonic() + 60
        while not source._stream or not source._stream.size:  # type: ignore[attr-defined]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        source.close()
        reader.join(60)
        assert not reader.is_alive()
    assert ended == ["cancelled"]
    provider.close()


def test_connection_is_not_taken_apart_under_whoever_reads_it(
    site: Site, provider: VsphereProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What http.client raises then is no error of a connection: that None cannot be read."""
    vm = provider.describe(site.make_vm(NOISE))
    site.vcenter.fault("GET /nfc/", "slow", rate=20_000)
    reads, closed_under = threading.Event(), []
    read, close = HTTPResponse.read, disk_servers.DiskConnection.close
    inside: set[int] = set()

    def watched_read(response: HTTPResponse, *count: int) -> bytes:
        if threading.current_thread() is not reader:
            return read(response, *count)
        inside.add(1)
        reads.set()
        try:
            return read(response, *count)
        finally:
            time.sleep(0.2)  # whoever closes is here by now
            inside.clear()

    def watched_close(connection: disk_servers.DiskConnection) -> None:
        closed_under.append(bool(inside))
        close(connection)

    ended: list[BaseException] = []

    def work(source: Any) -> None:
        try:
            source.read_into([(0, memoryview(bytearray(source.size)))])
        except (VmferryError, AttributeError) as error:
            ended.append(error)

    with provider.open_export(vm, vm.disks, "auto", Job("0" * 32, "0" * 8, "0" * 8)) as session:
        monkeypatch.setattr(HTTPResponse, "read", watched_read)
        monkeypatch.setattr(disk_servers.DiskConnection, "close", watched_close)
        reader = threading.Thread(target=work, args=(session.disks[0].source,))
        reader.start()
        assert reads.wait(60)
        session.disks[0].source.close()
        reader.join(60)
        assert not reader.is_alive()
    provider.close()
    assert [getattr(error, "kind", error) for error in ended] == ["cancelled"]
    assert closed_under == [False]


def test_stream_on_which_nothing_comes_ends_with_its_lease(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW", 0.05)
    monkeypatch.setattr(disk_stream, "PAUSE", 0.01)
    vm = site.make_vm(NOISE)
    site.vcenter.fault("GET /nfc/", "delay", seconds=30)
    site.vcenter.fault("HttpNfcLeaseProgress", "fault", fault="Timedout", skip=3)
    started = time.monotonic()
    refused = site.refused(vm)
    assert time.monotonic() - started < 25
    assert (refused.kind, "ended before its time" in refused.message) == ("timeout", True)


@pytest.mark.parametrize("on", ["HttpNfcLeaseProgress", "HttpNfcLeaseComplete", "HttpNfcLeaseGetManifest"])
@pytest.mark.parametrize("how", ["drop", "lose_answer"])
def test_line_to_vcenter_that_breaks_at_the_end_spoils_nothing(site: Site, on: str, how: str) -> None:
    vm = site.make_vm(DATA)
    site.vcenter.fault(on, how)
    done: dict[str, Any] = {}
    assert outcomes(site.vcenter, lambda: done.update(site.export(vm))) == ["completed"]
    assert site.disk(done) == DATA


def test_need_of_consolidation_is_told(site: Site) -> None:
    vm = site.make_vm(DATA, running=True)
    site.vcenter.fault("RemoveSnapshot_Task", "unconsolidated")
    assert "still need consolidation" in "".join(site.export(vm)["warnings"])


def test_export_is_whole_though_its_snapshot_cannot_be_removed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = site.make_vm(DATA, running=True)
    site.vcenter.fault("RemoveSnapshot_Task", "task", fault="FileLocked")
    monkeypatch.setattr(temporary_snapshot, "PATIENCE", 0.0)
    result = site.export(vm)
    assert site.disk(result) == DATA
    assert "may not be removed" in "".join(result["warnings"])
    assert len(site.vcenter.leftovers().snapshots) == 1
    monkeypatch.setattr(owner, "_started", lambda pid: 1)  # as if this were another process since
    site.export(vm, mode="full")


def test_snapshot_that_comes_to_light_late_is_removed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """vCenter goes on with what it was asked for when the line broke, and a guest may take long to be quiesced."""
    monkeypatch.setattr(temporary_snapshot, "LOOK_EVERY", 0.05)
    make, makers = snapshots.VsphereSnapshots._create, []

    def broken(*asked: Any) -> None:
        makers.append(threading.Timer(0.5, make, asked))
        makers[-1].start()
        raise VmferryError("network", "The line broke.") from ConnectionResetError()

    monkeypatch.setattr(snapshots.VsphereSnapshots, "_create", broken)
    with closing(VsphereProvider(site.settings)) as provider:
        vm = provider.describe(site.make_vm(DATA, running=True))
        with (
            pytest.raises(VmferryError, match="The line broke"),
            provider.open_export(vm, vm.disks, "auto", Job("0" * 32, "0" * 8, "0" * 8)),
        ):
            raise AssertionError("it began")
        makers[0].join(60)
        assert dict(site.vcenter.leftovers().snapshots) == {}


def test_cancel_ends_the_making_of_a_snapshot_and_waits_for_no_guest(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a guest is being quiesced, which may take a quarter of an hour."""
    vm = site.make_vm(DATA, running=True)
    stop, stopped = Flow.stop, threading.Event()

    def noted(flow: Flow, error: BaseException) -> None:
        stop(flow, error)
        stopped.set()

    def cancel_once_asked() -> None:
        while not site.vcenter.calls("CreateSnapshot_Task") and not stopped.is_set():
            time.sleep(0.05)
        flows[0].request_cancel("somebody said so")

    flows: list[Flow] = []
    begin = Flow.__init__

    def begun(flow: Flow) -> None:
        begin(flow)
        flows.append(flow)

    site.vcenter.forget_calls()
    site.vcenter.fault("CreateSnapshot_Task", "hang")
    monkeypatch.setattr(Flow, "stop", noted)
    monkeypatch.setattr(Flow, "__init__", begun)
    somebody = threading.Thread(target=cancel_once_asked)
    somebody.start()
    try:
        assert site.refused(vm).kind == "cancelled"
    finally:
        stopped.set()
        somebody.join()
    left = site.vcenter.leftovers()
    assert (dict(left.snapshots), list(left.running_tasks)) == ({}, [])
    assert len(site.vcenter.calls("CancelTask")) == 1


@pytest.mark.parametrize("fails", [False, True], ids=["made", "not made"])
def test_cancel_waits_for_a_snapshot_whose_making_cannot_be_cancelled_and_removes_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The task goes on although it was asked to end; once it has ended, there is something to remove, or nothing."""
    flow = Flow()
    ended = tasks._ended

    def late(session: Any, doing: str, task: Any, deadline: float, stopped: Any = None) -> Any:
        if not doing.startswith("Making the snapshot") or stopped is None:
            return ended(session, doing, task, deadline, stopped)
        flow.stop(VmferryError("cancelled", "The job was cancelled."))
        return None

    monkeypatch.setattr(tasks, "_ended", late)
    if fails:
        site.vcenter.fault("CreateSnapshot_Task", "task", fault="FileLocked")
    with closing(VsphereProvider(site.settings, flow)) as provider:
        vm = provider.describe(site.make_vm(DATA, running=True))
        with (
            pytest.raises((VmferryError, Stopped)),
            provider.open_export(vm, vm.disks, "crash_consistent", Job("0" * 32, "0" * 8, "0" * 8)),
        ):
            raise AssertionError("it began")
    assert flow.patience == temporary_snapshot.STOPPED
    assert dict(site.vcenter.leftovers().snapshots) == {}


@pytest.mark.parametrize(
    "trouble",
    [
        {"on": "RemoveSnapshot_Task", "action": "task", "fault": "FileLocked", "times": 2},
        {"on": "RemoveSnapshot_Task", "action": "drop", "times": 2},
        {"on": "RemoveSnapshot_Task", "action": "lose_answer"},
    ],
    ids=["disks in use", "no server", "lost answer"],
)
@pytest.mark.parametrize("fails", [False, True], ids=["good", "failing"])
def test_snapshot_is_removed_as_soon_as_it_can_be(
    site: Site, monkeypatch: pytest.MonkeyPatch, trouble: dict[str, Any], fails: bool
) -> None:
    monkeypatch.setattr(temporary_snapshot, "LOOK_EVERY", 0.01)
    vm = site.make_vm(DATA, running=True)
    site.vcenter.fault(**trouble)
    if fails:
        site.vcenter.fault("GET /nfc/", "status", status=403, times=-1)
        monkeypatch.setattr(disk_stream, "PAUSE", 0.01)
        site.refused(vm)
    else:
        assert site.export(vm)["warnings"] == []
    assert dict(site.vcenter.leftovers().snapshots) == {}


@pytest.mark.parametrize("how", ["fault", "task"])
@pytest.mark.parametrize(
    ("on", "missing", "asked"),
    [
        ("ExportVm", "VApp.Export", {"running": False}),
        ("ExportSnapshot", "VApp.Export", {}),
        ("CreateSnapshot_Task", "VirtualMachine.State.CreateSnapshot", {}),
        ("ShutdownGuest", "VirtualMachine.Interact.PowerOff", {"consistency": "powered_off", "shutdown_timeout": 30.0}),
    ],
)
def test_privilege_that_is_missing_for_an_export_is_named_and_nothing_is_left(
    site: Site, on: str, missing: str, asked: dict[str, Any], how: str
) -> None:
    if how == "task" and not on.endswith("_Task"):
        how = "fault"
    wanted = {"consistency": "crash_consistent" if asked.get("running", True) else "auto", **asked}
    vm = site.make_vm(DATA, running=wanted.pop("running", True))
    site.vcenter.fault(on, how, fault="NoPermission", missing=missing)
    error = site.refused(vm, on_failure="undo", **wanted)
    assert (error.kind, f"the privilege {missing} is missing" in error.message) == ("permission_denied", True), error
    assert site.in_store() == []


def test_privileges_that_are_missing_at_the_end_of_an_export_are_named_in_its_warnings(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = site.make_vm(DATA, running=True)
    missing = "VirtualMachine.State.RemoveSnapshot"
    site.vcenter.fault("RemoveSnapshot_Task", "fault", fault="NoPermission", missing=missing)
    warnings = site.export(vm)["warnings"]
    assert any(f"the privilege {missing} is missing" in warning for warning in warnings)
    monkeypatch.setattr(owner, "_started", lambda pid: 1)  # as if this were another process since
    site.export(vm, mode="full")  # which removes it


def test_privilege_to_start_the_guest_again_is_named_and_the_next_run_starts_it(site: Site) -> None:
    vm = site.make_vm(DATA, running=True)
    missing = "VirtualMachine.Interact.PowerOn"
    site.vcenter.fault("PowerOnVM_Task", "task", fault="NoPermission", missing=missing)
    error = site.refused(vm, consistency="powered_off", shutdown_timeout=30.0)
    assert (error.kind, f"the privilege {missing} is missing" in error.message) == ("permission_denied", True)
    assert any(told.startswith(f"Started {vm}.") for told in site.export(vm, max_age=3600.0)["warnings"])


def test_preflight_refuses_before_anything_is_made(site: Site) -> None:
    vm = site.make_vm(DATA, running=True, tpm=True)
    assert site.refused(vm).kind == "unsupported"
    checked = site.export(vm, check_mode=True)
    assert not checked["changed"]
    assert "virtual TPM" in "".join(checked["warnings"])
    assert site.vcenter.calls("CreateSnapshot_Task") == []


# --- runs that are killed ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dying() -> None:
    start_server()


@pytest.mark.usefixtures("dying")
@pytest.mark.parametrize("name", ["snapshot_made", "lease_begun", "window-delivered", "lease_ended"])
def test_run_that_is_killed_is_cleaned_up_by_the_next(site: Site, name: str) -> None:
    vm = site.make_vm(SYSTEM, running=True)
    (site.folder / "store").mkdir()
    die_at(name, site.request(vm))
    assert len(site.vcenter.leftovers().snapshots) == 1
    site.vcenter.restart()  # its lease and its session would go by themselves, later
    result = site.export(vm)
    assert site.disk(result) == SYSTEM
    assert result["changed"] is (name != "lease_ended")  # which is behind the commit


@pytest.mark.usefixtures("dying")
def test_run_that_is_killed_is_undone_where_its_job_is_cancelled(site: Site) -> None:
    vm = site.make_vm(SYSTEM, running=True)
    (site.folder / "store").mkdir()
    die_at("lease_begun", site.request(vm))
    site.vcenter.restart()
    request = site.request(vm)
    (job,) = list_jobs(request.transfer.state_dir, "", vm, "", 50)["jobs"]
    ended = end_job(
        JobRequest(
            job=job["id"],
            state="cancelled",
            timeout=60.0,
            state_dir=request.transfer.state_dir,
            provider=request.provider,
            store=request.store,
        ),
        False,
    )
    assert ended["changed"]
    assert dict(site.vcenter.leftovers().snapshots) == {}


@pytest.mark.usefixtures("dying")
def test_run_of_another_container_that_was_killed_is_cleaned_up_once_its_lease_is_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in AWX, where each task has a container of its own: nobody can look at its process."""
    vm = site.make_vm(SYSTEM, running=True)
    (site.folder / "store").mkdir()
    die_at("window-delivered", site.request(vm))
    site.vcenter.restart()
    here = owner._here()
    monkeypatch.setattr(owner, "_here", lambda: {**here, "pid_namespace": 1})
    living = site.refused(vm)
    assert living.kind == "busy"
    assert len(site.vcenter.leftovers().snapshots) == 1
    (intent,) = (site.folder / "store").rglob("intent.json")
    told = json.loads(intent.read_text())
    intent.write_text(json.dumps({**told, "lease_until": told["started_at"] - 1}))
    assert site.disk(site.export(vm)) == SYSTEM
