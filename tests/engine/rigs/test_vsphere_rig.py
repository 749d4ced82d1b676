# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulator of vSphere does what the provider's tests rely on, seen with VMware's own client."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from dissect.hypervisor.disk.vmdk import VMDK
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim, vmodl

from rigs.vsphere import Disk, VSphere, build

pytestmark = pytest.mark.slow

KIB, MIB = 1 << 10, 1 << 20
CHUNK = 64 * KIB
PATIENCE = 60.0  # seconds, for what takes none on a machine with nothing else to do
STREAM = "application/x-vnd.vmware-streamVmdk"
RANDOM = random.Random(7)
NOISE = RANDOM.randbytes(MIB)


class Client:
    """A session of VMware's client, and HTTP with its cookie."""

    def __init__(self, rig: VSphere) -> None:
        self.rig = rig
        self.tls = ssl.create_default_context(cafile=str(rig.certificate))
        self.instance = SmartConnect(**rig.connection(), sslContext=self.tls)
        self.content = self.instance.RetrieveContent()

    def all(self, kind: type) -> list[Any]:
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        try:
            return list(view.view)
        finally:
            view.Destroy()

    def machine(self, name: str) -> Any:
        return next(each for each in self.all(vim.VirtualMachine) if each.name == name)

    def snapshot(self, machine: Any, name: str, **options: Any) -> Any:
        given = {"name": name, "description": "", "memory": False, "quiesce": False, **options}
        return done(machine.CreateSnapshot_Task(**given))

    def http(
        self, method: str, url: str, headers: dict[str, str] | None = None, body: Any = None, cookie: bool = True
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        parts = urlsplit(url.replace("*", f"{self.rig.host}:{self.rig.port}", 1))
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=self.tls, timeout=PATIENCE)
        known = {"Cookie": self.instance._stub.cookie} if cookie else {}
        connection.request(method, f"{parts.path}?{parts.query}", body, {**known, **(headers or {})})
        answer = connection.getresponse()
        try:
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def file(self, name: str, datastore: str = "LocalDS_0", datacenter: str = "DC0") -> str:
        return f"{self.rig.url}/folder/{quote(name)}?dcPath={datacenter}&dsName={datastore}"


@pytest.fixture(scope="module")
def rig() -> Iterator[VSphere]:
    with VSphere() as rig:
        yield rig


@pytest.fixture
def client(rig: VSphere) -> Iterator[Client]:
    yield Client(rig)
    rig.heal()
    left = rig.leftovers()
    assert not left.leases
    for machine in Client(rig).all(vim.VirtualMachine):
        if machine.runtime.powerState == "poweredOn":
            done(machine.PowerOff())
        done(machine.Destroy_Task())
    assert not rig.leftovers().files
    rig.expire_sessions()


def done(task: Any) -> Any:
    until(lambda: task.info.state in ("success", "error"))
    if task.info.state == "error":
        raise task.info.error
    return task.info.result


def until(true: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ready(lease: Any) -> Any:
    until(lambda: lease.state != "initializing")
    assert lease.state == "ready"
    return lease.info.deviceUrl


def disks(config: Any) -> list[Any]:
    return [each for each in config.hardware.device if isinstance(each, vim.vm.device.VirtualDisk)]


def raw(stream: bytes, scratch: Path) -> bytes:
    source, target = scratch / "stream.vmdk", scratch / "stream.raw"
    source.write_bytes(stream)
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", source, target], check=True, capture_output=True)
    return target.read_bytes()


def stream(data: bytes, scratch: Path) -> bytes:
    source, target = scratch / "source.raw", scratch / "source.vmdk"
    source.write_bytes(data)
    made = ["-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run(["qemu-img", "convert", *made, source, target], check=True, capture_output=True)
    return target.read_bytes()


def areas(machine: Any, snapshot: Any, disk: Any, since: str) -> list[tuple[int, int]]:
    """Asked as often as there are pages."""
    found, offset, size = [], 0, disk.capacityInKB * KIB
    while offset < size:
        page = machine.QueryChangedDiskAreas(snapshot, disk.key, offset, since)
        found += [(each.start, each.length) for each in page.changedArea]
        offset = page.startOffset + page.length
    return found


# --- who may come in, and what there is -------------------------------------------------------------------------------


def test_strangers_wrong_passwords_and_untrusted_certificates_are_refused(rig: VSphere, client: Client) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        SmartConnect(**{**rig.connection(), "pwd": "wrong"}, sslContext=client.tls)
    with pytest.raises(ssl.SSLCertVerificationError):
        SmartConnect(**rig.connection(), sslContext=ssl.create_default_context())
    served = ssl.get_server_certificate((rig.host, rig.port), timeout=PATIENCE)
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(served)).hexdigest() == rig.thumbprint
    root = client.content.rootFolder
    client.instance._stub.cookie = ""
    with pytest.raises(vim.fault.NotAuthenticated):
        root.name  # noqa: B018


def test_sessions_expire_on_request_and_after_calls(rig: VSphere, client: Client) -> None:
    root = client.content.rootFolder
    assert root.name == "Datacenters"
    leaves = Client(rig)
    assert rig.leftovers().sessions == 2
    Disconnect(leaves.instance)
    assert rig.leftovers().sessions == 1
    rig.expire_sessions()
    assert rig.leftovers().sessions == 0
    with pytest.raises(vim.fault.NotAuthenticated):
        root.name  # noqa: B018
    rig.settings(calls_per_session=3)
    short = Client(rig)
    assert [short.content.rootFolder.name for _unused in range(2)] == ["Datacenters"] * 2
    with pytest.raises(vim.fault.NotAuthenticated):
        short.content.rootFolder.name  # noqa: B018
    rig.settings(calls_per_session=0)


def test_inventory_shows_what_was_seeded(rig: VSphere, client: Client) -> None:
    reference = rig.make_vm(
        "web",
        [b"boot", Disk(NOISE, 3 * MIB, mode="independent_persistent", thin=False, datastore="LocalDS_1")],
        folder="shop/front",
        host="DC0_C0_H1",
        firmware="efi",
        secure_boot=True,
        nvram=b"variables",
        tpm=True,
        encrypted=True,
        networks=["VM Network", "DC0_DVPG0"],
        version="vmx-17",
        cpus=2,
        memory=512,
        annotation="a note",
        uuid="420f6c3a-7d5b-4c7e-9a55-0123456789ab",
    )
    machine = client.machine("web")
    config = machine.config
    assert machine._moId == reference
    assert [machine.parent.name, machine.parent.parent.name] == ["front", "shop"]
    assert machine.runtime.host.name == "DC0_C0_H1"
    assert (config.version, config.firmware, config.bootOptions.efiSecureBootEnabled) == ("vmx-17", "efi", True)
    assert (config.hardware.numCPU, config.hardware.memoryMB, config.annotation) == (2, 512, "a note")
    assert (config.uuid, config.keyId.keyId) == ("420f6c3a-7d5b-4c7e-9a55-0123456789ab", "key-1")
    assert [(each.key, each.capacityInBytes, each.backing.diskMode) for each in disks(config)] == [
        (2000, KIB, "persistent"),
        (2001, 3 * MIB, "independent_persistent"),
    ]
    assert [each.backing.fileName for each in disks(config)] == [
        "[LocalDS_0] web/web.vmdk",
        "[LocalDS_1] web/web_1.vmdk",
    ]
    assert {"VM Network", "DC0_DVPG0"} == {each.name for each in machine.network}
    assert any(isinstance(each, vim.vm.device.VirtualTPM) for each in config.hardware.device)
    assert machine.snapshot is None  # what is not set reads as nothing, not as an error of the server
    assert rig.disk_bytes("web", 1) == NOISE.ljust(3 * MIB, b"\0")


# --- reading through leases -------------------------------------------------------------------------------------------


def test_machine_that_is_off_is_exported_by_a_lease(rig: VSphere, client: Client, tmp_path: Path) -> None:
    rig.make_vm("off", [NOISE, Disk(b"second", 2 * MIB)], nvram=b"variables")
    lease = client.machine("off").ExportVm()
    first, second, variables = ready(lease)
    assert lease.info.totalDiskCapacityInKB == 3 * KIB
    status, body, headers = client.http("GET", first.url, cookie=False)
    assert (status, headers["Content-Length"], headers["Content-Type"]) == (200, None, STREAM)
    assert raw(body, tmp_path) == NOISE
    assert raw(client.http("GET", second.url)[1], tmp_path) == b"second".ljust(2 * MIB, b"\0")
    assert client.http("GET", variables.url)[1] == b"variables"
    told = {each.key: (each.sha1, each.size) for each in lease.HttpNfcLeaseGetManifest()}
    assert told[first.key] == (hashlib.sha1(body).hexdigest(), len(body))
    assert len(told) == 3
    lease.HttpNfcLeaseProgress(70)
    lease.HttpNfcLeaseComplete()
    name = lease._moId
    assert (rig.leases()[name], rig.progress()[name]) == ("completed", [70])
    assert client.http("GET", first.url)[0] == 404


@pytest.mark.parametrize("writer", ["esxi", "qemu"])
def test_streams_are_what_qemu_and_others_read(rig: VSphere, client: Client, tmp_path: Path, writer: str) -> None:
    table = 512 * CHUNK  # what one grain table covers
    data = bytearray(2 * table + 3 * CHUNK + 8 * KIB)
    for offset in (0, 7 * CHUNK, table - 100, 2 * table + CHUNK, len(data) - 1000):
        data[offset : offset + 1000] = RANDOM.randbytes(1000)[: len(data) - offset]
    rig.make_vm("wide", [bytes(data)])
    rig.settings(stream=writer)
    lease = client.machine("wide").ExportVm()
    body = client.http("GET", ready(lease)[0].url)[1]
    rig.settings(stream="esxi")
    lease.HttpNfcLeaseComplete()
    assert raw(body, tmp_path) == bytes(data)
    directory = int.from_bytes(body[56:64], "little")
    assert (directory == 2**64 - 1) == (writer == "esxi")  # at the end, as ESXi has it, or not
    assert VMDK(BytesIO(body)).read(len(data)) == bytes(data)


def test_running_machine_is_exported_by_its_snapshot(rig: VSphere, client: Client, tmp_path: Path) -> None:
    rig.make_vm("on", [NOISE], running=True)
    machine = client.machine("on")
    with pytest.raises(vim.fault.InvalidPowerState) as refused:
        machine.ExportVm()
    assert refused.value.existingState == "poweredOn"
    snapshot = client.snapshot(machine, "before")
    rig.write("on", 0, 5000, b"written later")
    lease = snapshot.ExportSnapshot()
    (url,) = ready(lease)
    assert raw(client.http("GET", url.url)[1], tmp_path) == NOISE
    lease.HttpNfcLeaseAbort()
    assert rig.leases()[lease._moId] == "aborted"
    assert client.http("GET", url.url)[0] == 404
    assert rig.disk_bytes("on")[5000:5013] == b"written later"


def test_lease_ends_when_nobody_renews_it(rig: VSphere, client: Client) -> None:
    rig.make_vm("silent", [b"x"])
    rig.settings(lease_timeout=0.4)
    lease = client.machine("silent").ExportVm()
    (url,) = ready(lease)
    rig.settings(lease_timeout=3600)
    lease.HttpNfcLeaseProgress(1)
    assert client.http("GET", url.url)[0] == 200
    rig.settings(lease_timeout=0.01)
    until(lambda: lease.state == "error")
    rig.settings(lease_timeout=300)
    assert isinstance(lease.error, vim.fault.Timedout)
    assert rig.leases()[lease._moId] == "expired"
    with pytest.raises(vim.fault.Timedout):
        lease.HttpNfcLeaseProgress(2)


def test_streams_break_and_crawl_as_told(rig: VSphere, client: Client) -> None:
    rig.make_vm("poor", [NOISE])
    lease = client.machine("poor").ExportVm()
    (url,) = ready(lease)
    rig.fault("GET /nfc/", "truncate", bytes=200_000)
    with pytest.raises(http.client.IncompleteRead) as broken:
        client.http("GET", url.url)
    assert len(broken.value.partial) == 200_000
    rig.fault("GET /nfc/", "slow", rate=4 * MIB)
    started = time.monotonic()
    size = len(client.http("GET", url.url)[1])
    assert time.monotonic() - started >= size / (4 * MIB)
    rig.fault("GET /nfc/", "status", status=503)
    assert client.http("GET", url.url)[0] == 503
    assert client.http("GET", url.url)[0] == 200
    lease.HttpNfcLeaseComplete()


# --- snapshots, and what changed --------------------------------------------------------------------------------------


def flats(client: Client, name: str) -> bytes:
    return client.http("GET", client.file(f"{name}/{name}.vmdk".replace(".vmdk", "-flat.vmdk")))[1]


def chain(config: Any) -> list[str]:
    """The files that a machine's first disk stands on, from the top."""
    found, backing = [], disks(config)[0].backing
    while backing is not None:
        found.append(backing.fileName.rpartition("/")[2])
        backing = backing.parent
    return found


def test_removed_snapshots_are_folded(rig: VSphere, client: Client, tmp_path: Path) -> None:
    rig.make_vm("tree", [bytes(MIB)], running=True)
    machine = client.machine("tree")
    taken = []
    for i in range(3):
        rig.write("tree", 0, i * CHUNK, bytes([i + 1]) * 512)
        taken.append(client.snapshot(machine, f"s{i}"))
    rig.write("tree", 0, 3 * CHUNK, b"\4" * 512)

    def seen(data: bytes) -> list[int]:
        return [data[i * CHUNK] for i in range(4)]

    assert seen(flats(client, "tree")) == [1, 0, 0, 0]  # the base is the first snapshot's, as on ESXi
    assert chain(machine.config) == ["tree-000003.vmdk", "tree-000002.vmdk", "tree-000001.vmdk", "tree.vmdk"]
    assert chain(taken[1].config) == ["tree-000001.vmdk", "tree.vmdk"]
    done(taken[0].RemoveSnapshot_Task(removeChildren=False))
    assert seen(flats(client, "tree")) == [1, 2, 0, 0]
    assert chain(machine.config) == ["tree-000003.vmdk", "tree-000002.vmdk", "tree.vmdk"]
    lease = taken[2].ExportSnapshot()
    assert seen(raw(client.http("GET", ready(lease)[0].url)[1], tmp_path)) == [1, 2, 3, 0]
    lease.HttpNfcLeaseComplete()
    done(taken[1].RemoveSnapshot_Task(removeChildren=True))
    done(machine.PowerOff())
    assert seen(flats(client, "tree")) == [1, 2, 3, 4] == seen(rig.disk_bytes("tree"))
    assert chain(machine.config) == ["tree.vmdk"]
    assert not rig.leftovers().snapshots


def test_revert_brings_bytes_and_power_back(rig: VSphere, client: Client) -> None:
    rig.make_vm("back", [NOISE], running=True)
    machine = client.machine("back")
    snapshot = client.snapshot(machine, "before")
    rig.write("back", 0, 0, b"spoiled")
    assert rig.disk_bytes("back") != NOISE
    done(snapshot.RevertToSnapshot_Task())
    assert rig.disk_bytes("back") == NOISE
    assert machine.runtime.powerState == "poweredOff"
    done(machine.RemoveAllSnapshots_Task())
    assert flats(client, "back") == NOISE
    warm = machine.CreateSnapshotEx_Task(name="warm", description="", memory=True, quiesceSpec=None)
    assert rig.calls("CreateSnapshotEx_Task")[-1].options == "memory"
    assert [each.name for each in machine.snapshot.rootSnapshotList] == ["warm"]
    done(warm)


def test_revert_to_a_snapshot_with_memory_leaves_the_machine_on(rig: VSphere, client: Client) -> None:
    rig.make_vm("warm", [b"x"], running=True)
    machine = client.machine("warm")
    snapshot = client.snapshot(machine, "running", memory=True, quiesce=True)
    assert rig.calls("CreateSnapshot_Task")[-1].options == "memory quiesce"
    assert (machine.snapshot.rootSnapshotList[0].state, machine.snapshot.rootSnapshotList[0].quiesced) == (
        "poweredOn",
        True,
    )
    done(machine.PowerOff())
    done(snapshot.RevertToSnapshot_Task())
    assert machine.runtime.powerState == "poweredOn"


def test_disks_wait_for_consolidation(rig: VSphere, client: Client) -> None:
    rig.make_vm("untidy", [NOISE], running=True)
    machine = client.machine("untidy")
    snapshot = client.snapshot(machine, "stays")
    rig.write("untidy", 0, 0, b"new")
    rig.fault("RemoveSnapshot_Task", "unconsolidated")
    done(snapshot.RemoveSnapshot_Task(removeChildren=False))
    assert machine.runtime.consolidationNeeded
    assert (machine.snapshot, chain(machine.config)) == (None, ["untidy-000001.vmdk", "untidy.vmdk"])
    assert rig.leftovers().consolidation == ("untidy",)
    done(machine.ConsolidateVMDisks_Task())
    assert not machine.runtime.consolidationNeeded
    assert chain(machine.config) == ["untidy.vmdk"]
    rig.need_consolidation("untidy")
    assert machine.runtime.consolidationNeeded
    assert rig.disk_bytes("untidy")[:3] == b"new"


def test_changed_areas_are_exact_and_paged(rig: VSphere, client: Client) -> None:
    rig.make_vm("tracked", [NOISE[: 5 * CHUNK] + bytes(59 * CHUNK) + b"end"], running=True, tracking=True)
    machine = client.machine("tracked")
    first = client.snapshot(machine, "first")
    (disk,) = disks(first.config)
    assert areas(machine, first, disk, "*") == [(0, 5 * CHUNK), (64 * CHUNK, KIB)]
    written = [1, 3, 5, 7, 9, 11, 40]
    for number in written:
        rig.write("tracked", 0, number * CHUNK + 17, b"changed")
    rig.write("tracked", 0, 64 * CHUNK + 1000, bytes(12))  # what it was before is written again
    second = client.snapshot(machine, "second")
    rig.write("tracked", 0, 20 * CHUNK, b"later")
    since = disk.backing.changeId
    found = areas(machine, second, disk, since)
    assert found == [(number * CHUNK, CHUNK) for number in written] + [(64 * CHUNK, KIB)]
    page = machine.QueryChangedDiskAreas(second, disk.key, 0, since)
    assert len(page.changedArea) == 4
    assert page.length < disk.capacityInKB * KIB
    with pytest.raises(vmodl.fault.InvalidArgument):
        machine.QueryChangedDiskAreas(second, disk.key, 64 * CHUNK + KIB, since)
    with pytest.raises(vim.fault.FileFault):
        machine.QueryChangedDiskAreas(second, disk.key, 0, "52 de ad/7")
    rig.settings(star_is_whole=True)
    assert areas(machine, second, disk, "*") == [(0, 64 * CHUNK + KIB)]
    rig.settings(star_is_whole=False)
    rig.reset_tracking("tracked")
    third = client.snapshot(machine, "third")
    with pytest.raises(vim.fault.FileFault):
        machine.QueryChangedDiskAreas(third, disk.key, 0, since)
    assert disks(third.config)[0].backing.changeId.partition("/")[0] != since.partition("/")[0]


def test_tracking_takes_effect_with_the_next_snapshot(rig: VSphere, client: Client) -> None:
    rig.make_vm("late", [NOISE], running=True)
    machine = client.machine("late")
    done(machine.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    assert disks(machine.config)[0].backing.changeId is None
    wakes = client.snapshot(machine, "wakes")
    assert disks(wakes.config)[0].backing.changeId is None
    with pytest.raises(vim.fault.FileFault):
        machine.QueryChangedDiskAreas(wakes, 2000, 0, "*")
    done(wakes.RemoveSnapshot_Task(removeChildren=False))
    tracked = client.snapshot(machine, "tracked")
    (disk,) = disks(tracked.config)
    assert disk.backing.changeId
    assert areas(machine, tracked, disk, "*") == [(0, MIB)]
    assert rig.leftovers().change_tracking == ("late",)


def test_tracking_begun_beside_a_snapshot_knows_no_star(rig: VSphere, client: Client) -> None:
    rig.make_vm("crowded", [NOISE], running=True)
    machine = client.machine("crowded")
    client.snapshot(machine, "theirs")
    done(machine.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    client.snapshot(machine, "wakes")
    tracked = client.snapshot(machine, "tracked")
    with pytest.raises(vim.fault.FileFault):
        machine.QueryChangedDiskAreas(tracked, 2000, 0, "*")


# --- files of datastores ----------------------------------------------------------------------------------------------


def test_flat_files_are_read_by_ranges_unless_locked(rig: VSphere, client: Client) -> None:
    rig.make_vm("flat", [NOISE])
    url = client.file("flat/flat-flat.vmdk")
    assert client.http("GET", url, cookie=False)[0] == 401
    named = {"Authorization": "Basic " + b64encode(f"{rig.user}:{rig.password}".encode()).decode()}
    assert client.http("HEAD", url, named, cookie=False)[0] == 200
    assert client.http("GET", client.file("flat/nothing"))[0] == 404
    status, body, headers = client.http("GET", url, {"Range": "bytes=1000-1999"})
    assert (status, body, headers["Content-Range"]) == (206, NOISE[1000:2000], f"bytes 1000-1999/{MIB}")
    status, body, headers = client.http("HEAD", url)
    assert (status, body, headers["Content-Length"]) == (200, b"", str(MIB))
    rig.settings(folder_ranges=False)
    assert client.http("GET", url, {"Range": "bytes=1000-1999"})[:2] == (200, NOISE)
    rig.settings(folder_ranges=True)
    machine = client.machine("flat")
    done(machine.PowerOn())
    assert client.http("GET", url)[0] == 500  # the guest writes to it
    client.snapshot(machine, "frees")
    assert client.http("GET", url, {"Range": "bytes=0-511"})[0] == 206
    rig.settings(locked_flats="running")
    assert client.http("GET", url, {"Range": "bytes=0-511"})[0] == 500
    rig.settings(locked_flats="active")
    assert client.http("PUT", client.file("notes.txt"), body=b"a note")[0] == 201
    assert client.http("GET", client.file("notes.txt"))[1] == b"a note"
    assert client.http("DELETE", client.file("notes.txt"))[0] == 200
    partly = next(each for each in rig.calls("GET /folder/") if each.argument)
    assert (partly.argument, partly.bytes) == ("bytes=1000-1999", 1000)


# --- writing through leases -------------------------------------------------------------------------------------------

OVF = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
<References><File ovf:href="disk.vmdk" ovf:id="file1"/></References>
<DiskSection><Info/><Disk ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="disk1"
 ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
</DiskSection>
<VirtualSystem ovf:id="vm"><Info/><OperatingSystemSection ovf:id="102" ovf:osType="otherGuest64"
 xmlns:vmw="http://www.vmware.com/schema/ovf"><Info/></OperatingSystemSection>
<VirtualHardwareSection><Info/>
<System><vssd:ElementName>x</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID>
<vssd:VirtualSystemType>vmx-14</vssd:VirtualSystemType></System>
<Item><rasd:ElementName>SCSI</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID>
<rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
<Item><rasd:ElementName>disk</rasd:ElementName><rasd:HostResource>ovf:/disk/disk1</rasd:HostResource>
<rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
</VirtualHardwareSection></VirtualSystem></Envelope>"""


def start_import(client: Client, name: str, ovf: str = OVF) -> tuple[Any, Any]:
    pool, store = client.all(vim.ResourcePool)[0], client.all(vim.Datastore)[0]
    parameters = vim.OvfManager.CreateImportSpecParams(entityName=name, diskProvisioning="thin")
    spec = client.content.ovfManager.CreateImportSpec(ovf, pool, store, parameters)
    assert not spec.error
    lease = pool.ImportVApp(spec.importSpec, folder=client.all(vim.Datacenter)[0].vmFolder)
    urls = ready(lease)
    assert [each.importKey for each in urls] == [each.deviceId for each in spec.fileItem]
    return lease, urls[0]


def test_imported_disk_is_what_was_sent(rig: VSphere, client: Client, tmp_path: Path) -> None:
    lease, url = start_import(client, "arrived")
    status, _body, _headers = client.http("POST", url.url, {"Content-Type": STREAM}, stream(NOISE, tmp_path))
    assert status == 201
    lease.HttpNfcLeaseProgress(100)
    lease.HttpNfcLeaseComplete()
    assert rig.disk_bytes("arrived") == NOISE
    config = client.machine("arrived").config
    assert (config.version, config.firmware, disks(config)[0].backing.thinProvisioned) == ("vmx-14", "bios", True)
    assert any(isinstance(each, vim.vm.device.ParaVirtualSCSIController) for each in config.hardware.device)
    assert rig.leases()[lease._moId] == "completed"


@pytest.mark.parametrize(
    ("subtype", "kind"),
    [
        ("vmware.sata.ahci", vim.vm.device.VirtualAHCIController),
        ("vmware.nvme.controller", vim.vm.device.VirtualNVMEController),
    ],
)
def test_descriptor_is_read_as_vcenter_reads_it(
    rig: VSphere, client: Client, tmp_path: Path, subtype: str, kind: type
) -> None:
    controller = OVF.replace("VirtualSCSI", subtype).replace("ResourceType>6<", "ResourceType>20<")
    files = controller.replace("</References>", '<File ovf:href="vm.nvram" ovf:id="file2"/></References>')
    more = """<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
<vmw:Config ovf:required="false" vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>
<vmw:ExtraConfig ovf:required="false" vmw:key="nvram" vmw:value="ovf:/file/file2"/></VirtualHardwareSection>
<AnnotationSection><Info/><Annotation>salt &amp; pepper</Annotation></AnnotationSection>"""
    ovf = files.replace("</VirtualHardwareSection>", more)
    ovf = ovf.replace("<Envelope", '<Envelope xmlns:vmw="http://www.vmware.com/schema/ovf"')
    lease, url = start_import(client, "rich", ovf)
    assert client.http("POST", url.url, {"Content-Type": STREAM}, stream(NOISE, tmp_path))[0] == 201
    assert client.http("PUT", lease.info.deviceUrl[1].url, body=b"variables")[0] == 201
    lease.HttpNfcLeaseComplete()
    config = client.machine("rich").config
    assert (config.firmware, config.bootOptions.efiSecureBootEnabled) == ("efi", True)
    assert config.annotation == "salt & pepper"
    (disk,) = disks(config)
    assert [type(each) for each in config.hardware.device if each.key == disk.controllerKey] == [kind]
    assert rig.disk_bytes("rich") == NOISE
    assert client.http("GET", client.file("rich/rich.nvram"))[1] == b"variables"


@pytest.mark.parametrize("how", ["truncated", "another size", "no stream", "aborted", "silent"])
def test_failed_import_leaves_nothing(rig: VSphere, client: Client, tmp_path: Path, how: str) -> None:
    lease, url = start_import(client, "lost")
    assert rig.leftovers().machines == ("lost",)
    if how == "aborted":
        lease.HttpNfcLeaseAbort()
    elif how == "silent":
        rig.settings(lease_timeout=0.01)
        until(lambda: lease.state == "error")
        rig.settings(lease_timeout=300)
    else:
        good = stream(NOISE, tmp_path)
        bodies = {"truncated": good[:-70_000], "another size": stream(NOISE * 2, tmp_path), "no stream": NOISE}
        assert client.http("POST", url.url, {"Content-Type": STREAM}, bodies[how])[0] == 500
        assert lease.state == "error"
        assert rig.leases()[lease._moId].startswith("failed: ")
    left = rig.leftovers()
    assert (left.machines, left.files, left.leases) == ((), (), {})


def test_upload_without_a_length_is_refused_where_told(rig: VSphere, client: Client, tmp_path: Path) -> None:
    lease, url = start_import(client, "chunked")
    rig.settings(upload_needs_length=True)
    body = stream(NOISE, tmp_path)
    assert client.http("POST", url.url, {"Content-Type": STREAM}, iter([body]))[0] == 411
    rig.settings(upload_needs_length=False)
    assert client.http("POST", url.url, {"Content-Type": STREAM}, iter([body]))[0] == 201
    lease.HttpNfcLeaseComplete()
    assert rig.disk_bytes("chunked") == NOISE


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_calls_and_tasks_fail_as_told(rig: VSphere, client: Client) -> None:
    rig.make_vm("unlucky", [b"x"])
    machine = client.machine("unlucky")
    rig.forget_calls()
    rig.fault("CreateSnapshot_Task", "task", fault="InsufficientStorageSpace")
    with pytest.raises(vim.fault.InsufficientResourcesFault):
        client.snapshot(machine, "no room")
    rig.fault("CreateSnapshot_Task", "fault", fault="NoPermission", match=machine._moId)
    with pytest.raises(vim.fault.NoPermission):
        client.snapshot(machine, "not you")
    rig.fault("CreateSnapshot_Task", "drop", skip=1)
    client.snapshot(machine, "well")
    with pytest.raises((http.client.HTTPException, OSError)):
        client.snapshot(machine, "dropped")
    rig.fault("CreateSnapshot_Task", "lose_answer")
    with pytest.raises((http.client.HTTPException, OSError)):
        client.snapshot(machine, "done, but nobody knows")
    assert sorted(rig.leftovers().snapshots.values()) == ["done, but nobody knows", "well"]
    ended = [(each.argument, each.ended) for each in rig.calls("CreateSnapshot_Task")]
    assert ended == [
        ("no room", "InsufficientStorageSpace"),
        ("not you", "NoPermission"),
        ("well", ""),
        ("dropped", "dropped"),
        ("done, but nobody knows", "answer lost"),
    ]


def test_task_hangs_until_it_is_canceled(rig: VSphere, client: Client) -> None:
    rig.make_vm("stuck", [b"x"])
    rig.fault("CreateSnapshot_Task", "hang")
    task = client.machine("stuck").CreateSnapshot_Task("never", "", False, False)
    assert (task.info.state, rig.leftovers().running_tasks) == ("running", ("CreateSnapshot_Task",))
    task.CancelTask()
    with pytest.raises(vmodl.fault.RequestCanceled):
        done(task)
    assert rig.leftovers().running_tasks == ()


def test_guest_that_ignores_its_shutdown_stays_on(rig: VSphere, client: Client) -> None:
    rig.make_vm("stubborn", [b"x"], running=True)
    machine = client.machine("stubborn")
    rig.fault("ShutdownGuest", "ignore")
    machine.ShutdownGuest()
    assert machine.runtime.powerState == "poweredOn"
    machine.ShutdownGuest()
    assert machine.runtime.powerState == "poweredOff"


def test_restart_ends_sessions_leases_and_tasks(rig: VSphere, client: Client) -> None:
    rig.make_vm("through", [b"x"])
    lease = client.machine("through").ExportVm()
    ready(lease)
    rig.fault("CreateSnapshot_Task", "hang")
    client.machine("through").CreateSnapshot_Task("never", "", False, False)
    rig.restart()
    left = rig.leftovers()
    assert (left.sessions, left.leases, left.running_tasks) == (0, {}, ())
    assert rig.leases()[lease._moId] == "restart"
    with pytest.raises(vim.fault.NotAuthenticated):
        lease.HttpNfcLeaseProgress(1)


def test_datastores_are_of_the_kind_they_are_made(rig: VSphere, client: Client) -> None:
    rig.make_vm("object", [NOISE])
    store = next(each for each in client.all(vim.Datastore) if each.name == "LocalDS_0")
    assert store.summary.type == "VMFS"
    rig.change_datastore("LocalDS_0", type="vsan", free=5 * MIB)
    assert (store.summary.type, store.summary.freeSpace) == ("vsan", 5 * MIB)
    assert client.http("GET", client.file("object/object-flat.vmdk"))[0] == 404
    rig.change_datastore("LocalDS_0")
    assert client.http("GET", client.file("object/object-flat.vmdk"))[0] == 200


# --- other sites ------------------------------------------------------------------------------------------------------


def test_esxi_names_no_host_in_its_leases(tmp_path: Path) -> None:
    with VSphere(esxi=True) as esxi:
        client = Client(esxi)
        assert client.content.about.apiType == "HostAgent"
        esxi.make_vm("alone", [NOISE])
        machine = client.machine("alone")
        lease = machine.ExportVm()
        (url,) = ready(lease)
        assert (url.url.partition("/nfc/")[0], url.sslThumbprint) == ("https://*", "")
        assert raw(client.http("GET", url.url)[1], tmp_path) == NOISE
        lease.HttpNfcLeaseComplete()
        snapshot = client.snapshot(machine, "s")
        done(snapshot.RemoveSnapshot_Task(removeChildren=False))
        flat = client.file("alone/alone-flat.vmdk", datacenter="ha-datacenter")
        assert client.http("GET", flat)[1] == NOISE
        done(machine.Destroy_Task())
        assert esxi.leftovers().files == ()


def test_disks_are_served_by_a_host_of_its_own() -> None:
    with VSphere(disks_elsewhere=True, trusted_disks=False) as rig:
        client = Client(rig)
        rig.make_vm("there", [b"x"])
        lease = client.machine("there").ExportVm()
        (url,) = ready(lease)
        with pytest.raises(ssl.SSLCertVerificationError):
            client.http("GET", url.url)
        parts = urlsplit(url.url)
        served = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((parts.hostname, parts.port), timeout=PATIENCE))
        assert url.sslThumbprint.replace(":", "").lower() == hashlib.sha1(served).hexdigest()
        assert hashlib.sha256(served).hexdigest() == rig.disk_thumbprint
        rig.settings(host_name="esx1.test:443")
        other = client.machine("there").ExportVm()
        assert ready(other)[0].url.startswith("https://esx1.test:443/nfc/")


# --- the program itself -----------------------------------------------------------------------------------------------


def test_simulator_is_compiled_once_by_all_who_want_it(tmp_path: Path) -> None:
    go = tmp_path / "bin/go"
    go.parent.mkdir()
    go.write_text(f'#!/bin/sh\necho run >>{tmp_path}/runs\nsleep 0.2\necho program >"$4"\n')
    go.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{go.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(build.__file__).parents[2]),
        "VMFERRY_TEST_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, build.__file__]
    workers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _unused in range(4)]
    printed = {worker.communicate()[0] for worker in workers}
    (path,) = printed
    assert Path(path.strip()).read_text() == "program\n"
    assert (tmp_path / "runs").read_text() == "run\n"


def test_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMFERRY_TEST_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "simulator"
    source.mkdir()
    (source / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    monkeypatch.setattr(build, "SOURCES", source)
    with pytest.raises(RuntimeError, match="undefined: nonsense"):
        build.simulator()


def test_sources_are_formatted_as_go_wants_them() -> None:
    done = subprocess.run(["gofmt", "-l", build.SOURCES], check=True, capture_output=True, text=True)
    assert (done.stdout, len(list(build.SOURCES.glob("*.go"))) > 10) == ("", True)
