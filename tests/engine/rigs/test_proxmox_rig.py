# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rig of Proxmox VE does what the provider's tests rely on, seen with proxmoxer, ssh and QEMU's own tools."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from dissect.archive.vma import VMA
from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException

from rigs.proxmox import ProxmoxServer
from rigs.proxmox.ids import COUNT
from rigs.proxmox.server import RUN

pytestmark = pytest.mark.slow

KIB, MIB = 1 << 10, 1 << 20
EXTENT = 4 * MIB
PATIENCE = 60.0  # seconds, for what takes none on a machine with nothing else to do
NOISE = random.Random(9).randbytes(MIB)
ON_NODE = "/nodes/{node}"


@pytest.fixture(scope="module")
def server() -> Iterator[ProxmoxServer]:
    with ProxmoxServer() as server:
        yield server


@pytest.fixture
def pve(server: ProxmoxServer) -> Iterator[ProxmoxServer]:
    yield server
    server.heal()
    server.change(time_scale=0, quorate=True, acl=None)
    server.clear()
    server.forget_calls()


def client(pve: ProxmoxServer, **changes: Any) -> Any:
    told = {**pve.settings(token=False), **changes}
    given: dict[str, Any] = {"user": told["api_user"], "verify_ssl": told["ca_path"], "timeout": 60}
    if "api_token_id" in told:
        given.update(token_name=told["api_token_id"], token_value=told["api_token_secret"])
    else:
        given["password"] = told["api_password"]
    return ProxmoxAPI(told["api_host"], port=told["api_port"], **given)


def on(pve: ProxmoxServer, vmid: int) -> Any:
    return client(pve).nodes(pve.node).qemu(vmid)


def ended(pve: ProxmoxServer, upid: str) -> str:
    return str(client(pve).nodes(pve.node).tasks(upid).status.get()["exitstatus"])


def refused(call: Any, **params: Any) -> str:
    with pytest.raises(ResourceException) as caught:
        call(**params)
    return f"{caught.value.status_code} {caught.value.content} {caught.value.errors}"


def at_node(pve: ProxmoxServer, *argv: str) -> subprocess.CompletedProcess[str]:
    """By SSH."""
    told = pve.settings()
    options = ["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    options += ["-o", f"UserKnownHostsFile={told['ssh_known_hosts']}", "-i", told["ssh_private_key_file"]]
    command = ["ssh", *options, "-p", str(told["ssh_port"]), told["host_map"][pve.node], *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def qmp(vmid: int, command: str, **arguments: Any) -> Any:
    """At the socket that Proxmox VE has."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(f"/var/run/qemu-server/{vmid}.qmp")
        told = line.makefile("r")
        for asked in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
            line.sendall(json.dumps(asked).encode())
            said = json.loads(told.readline())
            while "return" not in said:
                assert "error" not in said, said
                said = json.loads(told.readline())
        return said["return"]


@pytest.mark.parametrize("running", [False, True], ids=["off", "on"])
@pytest.mark.parametrize(
    ("storage", "format"), [("local", "raw"), ("local", "qcow2"), ("block", "raw"), ("thin", "raw")]
)
def test_what_a_guest_writes_is_on_its_disk_and_in_the_volume_that_the_node_knows(
    pve: ProxmoxServer, storage: str, format: str, running: bool
) -> None:
    vmid = pve.make_vm("a", [NOISE + b"\0" * 100, b"second"], running, storage, format)
    size = EXTENT if storage in ("block", "thin") else MIB + KIB
    pve.write(vmid, 0, 4096, b"written by the guest")
    pve.zero(vmid, 0, 64 * KIB, 128 * KIB)
    pve.discard(vmid, 0, 256 * KIB, 64 * KIB)
    expected = bytearray(NOISE.ljust(size, b"\0"))
    expected[4096:4116] = b"written by the guest"
    expected[64 * KIB : 192 * KIB] = bytes(128 * KIB)
    expected[256 * KIB : 320 * KIB] = bytes(64 * KIB)
    assert pve.disk_bytes(vmid, 0) == expected
    assert pve.disk_bytes(vmid, "scsi1").rstrip(b"\0") == b"second"
    volid, *options = pve.vms()[vmid]["config"]["scsi0"].split(",")
    assert options == ["discard=on", f"size={size // KIB}K" if size % MIB else f"size={size // MIB}M"]
    path = at_node(pve, "pvesm", "path", volid).stdout.strip()
    active = running or storage == "local"
    assert pve.volumes()[volid] == (Path(path), active)
    assert Path(path).exists() == active
    if storage == "local" and format == "raw":
        assert Path(path).read_bytes() == expected
    elif not active:
        assert at_node(pve, "lvchange", "-ay", path).returncode == 0
        assert Path(path).read_bytes() == expected
        at_node(pve, "lvchange", "-an", path)
        assert not Path(path).exists()


@pytest.mark.parametrize("release", [8, 9])
def test_a_machine_that_runs_has_its_monitor_and_its_block_nodes_as_that_release_names_them(release: int) -> None:
    with ProxmoxServer(release=release) as pve:
        keys = ("scsi0", "virtio0", "sata0", "ide1", "efidisk0")
        vmid = pve.make_vm("a", [NOISE] * 4 + [bytes(540672)], True, format="qcow2", keys=keys)
        told = {one["qdev"]: one for one in qmp(vmid, "query-block") if one.get("qdev")}
        assert {key for key in keys[:4] if any(key in device for device in told)} == set(keys[:4])
        first = told["scsi0"]
        assert first["inserted"]["drv"] == ("throttle" if release == 9 else "qcow2")
        assert (first["inserted"]["node-name"] if release == 9 else first["device"]) == "drive-scsi0"
        assert client(pve).version.get()["release"].startswith(str(release))
        pve.power(vmid, "crash")
        assert pve.vms()[vmid]["status"] == "stopped"
        assert not Path(f"/var/run/qemu-server/{vmid}.qmp").exists()


def test_a_fresh_volume_of_a_thick_group_has_what_was_there_and_that_of_a_thin_pool_has_zeros(
    pve: ProxmoxServer,
) -> None:
    vmid = int(client(pve).cluster.nextid.get())
    asked = {"scsi0": "block:0.01", "scsi1": "thin:0.01", "scsi2": "local:0.01,format=qcow2"}
    assert ended(pve, client(pve).nodes(pve.node).qemu.post(vmid=vmid, name="a", **asked)) == "OK"
    thick, thin, file = (pve.disk_bytes(vmid, number) for number in range(3))
    assert (set(thick), set(thin), set(file)) == ({0xA5}, {0}, {0})
    assert (len(thick), len(thin)) == (3 * EXTENT, 3 * EXTENT)
    assert all(active for _path, active in pve.volumes().values())  # as they are left when they were made
    assert pve.leftovers().machines == {vmid: "a"}
    assert ended(pve, on(pve, vmid).delete()) == "OK"
    assert (pve.volumes(), bool(pve.leftovers())) == ({}, False)


def test_disks_are_added_taken_away_and_made_larger_by_the_api(pve: ProxmoxServer) -> None:
    vmid = pve.make_vm("a", [NOISE], True)
    on(pve, vmid).resize.put(disk="scsi0", size=f"{2 * MIB // KIB}K")
    assert pve.disk_bytes(vmid, 0) == NOISE.ljust(2 * MIB, b"\0")
    pve.write(vmid, 0, 2 * MIB - 3, b"end")
    assert "500" in refused(on(pve, vmid).config.put, lock="nobody's") or pve.wrong_calls()
    on(pve, vmid).status.stop.post()
    on(pve, vmid).config.put(scsi1="thin:1", virtio3="local:0.001")
    assert pve.keys(vmid) == ["scsi0", "scsi1", "virtio3"]
    on(pve, vmid).config.put(delete="scsi1")
    config = on(pve, vmid).config.get()
    assert "scsi1" not in config
    assert config["unused0"] in pve.volumes()
    on(pve, vmid).config.put(delete="unused0")
    assert config["unused0"] not in pve.volumes()


def test_a_guest_shuts_down_at_once_or_later_or_not_at_all(pve: ProxmoxServer) -> None:
    def lasts(upid: str) -> str:
        while (told := client(pve).nodes(pve.node).tasks(upid).status.get())["status"] == "running":
            if pve.vms()[vmid]["status"] == "running":
                pve.power(vmid, "off")
        return str(told["exitstatus"])

    vmid = pve.make_vm("a", [NOISE], True)
    assert lasts(on(pve, vmid).status.shutdown.post(timeout=60)) == "OK"
    pve.obeys(vmid, False)
    for timeout in (60, 30):
        on(pve, vmid).status.start.post()
        assert lasts(on(pve, vmid).status.shutdown.post(timeout=timeout)) == "OK"
        assert pve.vms()[vmid]["status"] == "stopped"
    on(pve, vmid).status.start.post()
    upid = on(pve, vmid).status.shutdown.post(timeout=1)
    while client(pve).nodes(pve.node).tasks(upid).status.get()["status"] == "running":
        pass
    assert "got timeout" in ended(pve, upid)
    assert pve.vms()[vmid]["status"] == "running"


@pytest.mark.parametrize("storage", ["local", "thin"])
def test_a_snapshot_is_what_the_disks_were(pve: ProxmoxServer, storage: str) -> None:
    vmid = pve.make_vm("a", [NOISE], True, storage, "qcow2" if storage == "local" else "raw")
    pve.write(vmid, 0, 0, b"before")
    before = pve.disk_bytes(vmid, 0)
    assert ended(pve, on(pve, vmid).snapshot.post(snapname="one", vmstate=1)) == "OK"
    pve.write(vmid, 0, 0, b"after!")
    assert ended(pve, on(pve, vmid).snapshot("one").rollback.post()) == "OK"
    assert (pve.disk_bytes(vmid, 0), pve.vms()[vmid]["status"]) == (before, "running")
    assert ended(pve, on(pve, vmid).snapshot("one").delete()) == "OK"
    raw = pve.make_vm("b", [NOISE])
    assert "snapshot feature is not available" in ended(pve, on(pve, raw).snapshot.post(snapname="one"))


def test_an_image_becomes_a_disk_and_none_that_leads_elsewhere(pve: ProxmoxServer, tmp_path: Path) -> None:
    raw, image = tmp_path / "a.raw", tmp_path / "a.qcow2"
    raw.write_bytes(NOISE)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    vmid = int(client(pve).cluster.nextid.get())
    made = {"vmid": vmid, "name": "a", "scsi0": f"thin:0,import-from={image}"}
    assert ended(pve, client(pve).nodes(pve.node).qemu.post(**made)) == "OK"
    assert pve.disk_bytes(vmid, 0) == NOISE.ljust(EXTENT, b"\0")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", tmp_path / "b.qcow2"], check=True
    )
    other = {"vmid": vmid + 1, "name": "b", "scsi0": f"thin:0,import-from={tmp_path / 'b.qcow2'}"}
    assert "backing file" in ended(pve, client(pve).nodes(pve.node).qemu.post(**other))
    assert vmid + 1 not in pve.vms()


def test_calls_that_proxmox_would_not_take_are_refused_and_told_with_what_they_need(pve: ProxmoxServer) -> None:
    vmid = pve.make_vm("a")
    assert "400" in refused(on(pve, vmid).config.put, memori=1)
    assert "memori" in "".join(pve.wrong_calls())
    assert "400" in refused(on(pve, vmid).status.start.post, patience=1)
    assert "400" in refused(client(pve).cluster.resources.get, type="machines")
    assert len(pve.wrong_calls()) == 3
    pve.forget_calls()
    on(pve, vmid).status.start.post()
    (call,) = [one for one in pve.calls() if one["method"] == "POST" and "start" in one["path"]]
    assert call["path"] == "/nodes/{node}/qemu/{vmid}/status/start"
    assert ["/vms/{vmid}", "VM.PowerMgmt"] in call["asked"]
    assert call["rule"] == {"check": ["perm", "/vms/{vmid}", ["VM.PowerMgmt"]]}
    assert pve.wrong_calls() == []
    assert pve.first_vmid <= vmid < pve.first_vmid + COUNT


def test_who_has_no_privilege_is_refused_and_a_token_and_a_password_are_let_in(pve: ProxmoxServer) -> None:
    vmid = pve.make_vm("a")
    told = pve.settings_of("watcher@pve", {f"/vms/{vmid}": ["VM.Audit"]})
    watcher = client(pve, **told)
    assert watcher.nodes(pve.node).qemu(vmid).config.get()["name"] == "a"
    assert "VM.PowerMgmt" in refused(watcher.nodes(pve.node).qemu(vmid).status.start.post)
    assert client(pve, **pve.settings()).nodes(pve.node).qemu(vmid).status.start.post()
    with pytest.raises(AuthenticationError):
        client(pve, api_password="wrong").version.get()


def test_faults_meet_the_calls_that_they_are_meant_for(pve: ProxmoxServer) -> None:
    vmid = pve.make_vm("a")
    config, start = f"{ON_NODE}/qemu/{{vmid}}/config", f"{ON_NODE}/qemu/{{vmid}}/status/start"
    pve.fault("GET", config, "refuse", status=503, message="not now", skip=1)
    assert on(pve, vmid).config.get()["name"] == "a"
    assert "503" in refused(on(pve, vmid).config.get)
    assert on(pve, vmid).config.get()["name"] == "a"
    pve.fault("POST", start, "task", message="no memory")
    assert ended(pve, on(pve, vmid).status.start.post()) == "no memory"
    pve.fault("POST", start, "lose_answer")
    api = on(pve, vmid)
    with pytest.raises(requests.ConnectionError):
        api.status.start.post()
    assert pve.vms()[vmid]["status"] == "running"
    pve.fault("POST", f"{ON_NODE}/qemu/{{vmid}}/status/stop", "reset")
    with pytest.raises(requests.ConnectionError):
        api.status.stop.post()
    assert pve.vms()[vmid]["status"] == "running"
    pve.fault("GET", config, "expired")
    assert "401" in refused(api.config.get)


def test_commands_take_the_documented_arguments_alone_by_ssh_and_on_the_node(pve: ProxmoxServer) -> None:
    vmid = pve.make_vm("a", [NOISE])
    volid = pve.vms()[vmid]["config"]["scsi0"].split(",")[0]
    for wrong in (["pvesm", "path"], ["pvesm", "walk", volid], ["pvesm", "path", "--fast", volid], ["qm", "status"]):
        done = at_node(pve, *wrong)
        assert (done.returncode, done.stdout, bool(done.stderr)) == (255, "", True)
    assert volid in at_node(pve, "pvesm", "list", "local", "--vmid", str(vmid)).stdout
    with pve.on_the_node():
        made = subprocess.run(
            ["pvesm", "alloc", "thin", str(vmid), f"vm-{vmid}-fleece-0", "1M"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert made.stdout == f"successfully created 'thin:vm-{vmid}-fleece-0'\n"
        assert pve.leftovers().volumes == [f"thin:vm-{vmid}-fleece-0"]
        subprocess.run(["pvesm", "free", f"thin:vm-{vmid}-fleece-0"], capture_output=True, check=True)
    assert not pve.leftovers()
    pve.break_command("pvesm path", "storage 'local' is not online")
    assert "not online" in at_node(pve, "pvesm", "path", volid).stderr
    assert at_node(pve, "pvesm", "path", volid).returncode == 0
    assert ["pvesm", "path", volid] in pve.commands_run()


@pytest.mark.parametrize("running", [False, True], ids=["off", "on"])
def test_an_archive_has_the_disks_and_the_machine_and_becomes_another(
    pve: ProxmoxServer, tmp_path: Path, running: bool
) -> None:
    efi = bytes(range(256)) * 2112
    made = pve.make_vm("a", [NOISE + b"\0" * MIB, efi], running, format="qcow2", keys=("scsi0", "efidisk0"), tags="x")
    archive = tmp_path / "archive"
    with pve.on_the_node():
        with archive.open("wb") as file:
            subprocess.run(["vzdump", str(made), "--stdout", "--mode", "snapshot"], stdout=file, check=True)
        assert pve.vms()[made]["lock"] is None
        with archive.open("rb") as file:
            found = VMA(file)
            assert {disk.name: disk.open().read() for disk in found.devices()} == {
                "drive-scsi0": NOISE + bytes(MIB),
                "drive-efidisk0": efi,
            }
            assert b"#qmdump#map:scsi0:drive-scsi0:local:qcow2:\n" in found.configs()["qemu-server.conf"]
        vmid = int(client(pve).cluster.nextid.get())
        restore = ["qmrestore", "-", str(vmid), "--storage", "thin"]
        subprocess.run(restore, input=archive.read_bytes(), check=True)
        again = subprocess.run(restore, input=archive.read_bytes(), capture_output=True, check=False)
        assert again.returncode == 255
        assert b"already exists" in again.stderr
        named = subprocess.run(["qmrestore", str(archive), str(vmid + 1)], capture_output=True, check=False)
        assert b"couldn't determine archive info" in named.stderr
    config = pve.vms()[vmid]["config"]
    assert (config["name"], config["tags"], config["scsi0"].split(":")[0]) == ("a", "x", "thin")
    assert pve.disk_bytes(vmid, "scsi0") == NOISE.ljust(EXTENT, b"\0")
    assert pve.disk_bytes(vmid, "efidisk0").startswith(efi)


def test_what_is_left_on_the_node_is_told(pve: ProxmoxServer, tmp_path: Path) -> None:
    vmid = pve.make_vm("a", [NOISE], True)
    (node,) = [one["node-name"] for one in pve.qmp(vmid, "query-named-block-nodes") if one["node-name"][0] == "f"]
    qmp(vmid, "block-dirty-bitmap-add", node=node, name="vmferry-a")
    qmp(vmid, "blockdev-add", **{"driver": "null-co", "node-name": "vmferry-n", "size": MIB})
    off = pve.make_vm("b", [NOISE])
    volid = pve.vms()[off]["config"]["scsi0"].split(",")[0]
    folder = RUN / f"rig-{off}"
    folder.mkdir(parents=True)
    server = subprocess.Popen(["qemu-nbd", "-t", "-r", "-f", "raw", "-k", folder / "n0", pve.volumes()[volid][0]])
    try:
        left = pve.leftovers()
        assert left.bitmaps == {f"{vmid}/{node}": ["vmferry-a"]}
        assert left.block_nodes == [f"{vmid}/vmferry-n"]
        assert [f"rig-{off}" in one for one in left.processes] == [True]
        assert left.folders == [str(folder)]
    finally:
        server.terminate()
        server.wait()
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    pve.forget_bitmaps(vmid)
    qmp(vmid, "blockdev-del", **{"node-name": "vmferry-n"})
    assert not pve.leftovers()


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_nothing_is_left_of_a_rig(killed: bool) -> None:
    with ProxmoxServer() as pve:
        vmid = pve.make_vm("a", [NOISE], True, "block")
        (path, _active) = next(iter(pve.volumes().values()))
        pid = int(Path(f"/var/run/qemu-server/{vmid}.pid").read_text())
        assert path.is_block_device()
        assert Path(f"/proc/{pid}").exists()
        if killed:
            pve.process.kill()
            pve.process.wait()
            path.unlink()
            path.parent.rmdir()
            Path(f"/var/run/qemu-server/{vmid}.pid").unlink()
            Path(f"/var/run/qemu-server/{vmid}.qmp").unlink()
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
    assert not path.parent.exists()
    attached = subprocess.run(["/sbin/losetup", "-a"], capture_output=True, text=True, check=True).stdout
    assert f"vm-{vmid}-" not in attached  # the device itself may be another rig's by now
    assert not list(Path("/var/run/qemu-server").glob(f"{vmid}.*"))
    assert os.environ["PATH"].count("vmferry-pve") == 0
