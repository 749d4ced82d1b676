# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM that is off: its images as they are, and nobody may write to them meanwhile."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs import guests
from rigs.domain import Disk, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig
from rigs.loop import loop_device

from .harness import eventually, open_session, problems, read_all, sha256


@pytest.fixture
def off(rig: LibvirtRig, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[libvirt.virDomain, Path]]:
    """A domain that is off, with one disk in the format that the test names, and what that disk holds."""
    reference = guests.mbr_disk(tmp_path / "reference", "off", 8 << 20)
    with reference.open("r+b") as file:
        file.seek(5 << 20)
        file.write(b"data" * 50000)
    format = request.param
    path = guests.place(reference, rig.directory / f"off.{format}", format)
    domain = rig.connect().defineXML(domain_xml(Machine("off", (Disk(path, format),)), rig.directory))
    yield domain, reference
    remove_domain(domain)
    path.unlink()


@pytest.mark.parametrize("off", ["qcow2", "raw"], indirect=True)
def test_what_is_read_is_what_the_image_holds(
    provider: LibvirtProvider, off: tuple[libvirt.virDomain, Path], tmp_path: Path
) -> None:
    with open_session(provider, "off") as session:
        assert session.consistency == "powered_off"
        copied = read_all(session.disks[0].source, tmp_path / "copied")
        kinds = {extent.kind for extent in session.disks[0].source.extents()}
    assert kinds == {"data", "zero"}
    assert sha256(copied) == sha256(off[1])


@pytest.mark.parametrize("off", ["qcow2", "raw"], indirect=True)
def test_the_vm_cannot_be_started_meanwhile(provider: LibvirtProvider, off: tuple[libvirt.virDomain, Path]) -> None:
    with open_session(provider, "off"), pytest.raises(libvirt.libvirtError, match="lock"):
        off[0].create()
    eventually(lambda: starts(off[0]))


def starts(domain: libvirt.virDomain) -> bool:
    """libvirt may learn of the end of the QEMU that could not start while it starts the next, and take it for that."""
    try:
        domain.create()
    except libvirt.libvirtError as error:
        if "no longer running" not in str(error):
            raise
    return bool(domain.isActive())


@pytest.mark.parametrize("off", ["qcow2", "raw"], indirect=True)
def test_an_image_that_somebody_writes_to_is_busy(
    provider: LibvirtProvider, off: tuple[libvirt.virDomain, Path], tmp_path: Path
) -> None:
    disk = provider.describe("off").disks[0]
    socket = tmp_path / "socket"
    command = ["qemu-nbd", "-f", disk.format, "-k", str(socket), "--fork", "--pid-file", str(tmp_path / "pid")]
    subprocess.run([*command, disk.source], check=True)
    try:
        with pytest.raises(VmferryError) as caught, open_session(provider, "off"):
            pass
        assert caught.value.kind == "busy"
    finally:
        subprocess.run(["kill", (tmp_path / "pid").read_text().strip()], check=True)


def test_compressed_clusters_are_read_too(provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path) -> None:
    reference = guests.linux_disk()
    path = rig.directory / "compressed.qcow2"
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", "-f", "raw", str(reference), str(path)], check=True)
    domain = rig.connect().defineXML(domain_xml(Machine("compressed", (Disk(path),)), rig.directory))
    try:
        with open_session(provider, "compressed") as session:
            copied = read_all(session.disks[0].source, tmp_path / "copied")
        assert sha256(copied) == sha256(reference)
    finally:
        domain.undefine()


def test_a_block_device_is_read(provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path) -> None:
    image = guests.place(guests.mbr_disk(tmp_path / "raw", "block", 4 << 20), tmp_path / "image.qcow2")
    with image.open("r+b") as file:
        file.truncate(8 << 20)
    with loop_device(image) as device:
        disk = Disk(device, "qcow2", kind="block")
        domain = rig.connect().defineXML(domain_xml(Machine("block", (disk,)), rig.directory))
        try:
            with open_session(provider, "block") as session:
                copied = read_all(session.disks[0].source, tmp_path / "copied")
            assert sha256(copied) == sha256(tmp_path / "raw")
        finally:
            domain.undefine()


def test_a_backing_file_of_an_unnamed_format_is_refused(
    provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path
) -> None:
    """A guest could write a qcow2 header that names any file of the host into its raw disk."""
    base = guests.mbr_disk(rig.directory / "base.raw", "base")
    overlay = rig.directory / "overlay.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay], check=True)
    subprocess.run(["qemu-img", "rebase", "-q", "-u", "-b", "", overlay], check=True)
    header = bytearray(overlay.read_bytes()[: 1 << 16])
    name = str(base).encode()
    header[8:16], header[16:20] = (4096).to_bytes(8, "big"), len(name).to_bytes(4, "big")
    header[4096 : 4096 + len(name)] = name
    with overlay.open("r+b") as file:
        file.write(header)
    domain = rig.connect().defineXML(domain_xml(Machine("unnamed", (Disk(overlay),)), rig.directory))
    try:
        with pytest.raises(VmferryError, match="which format") as caught, open_session(provider, "unnamed"):
            pass
        assert caught.value.kind == "invalid_config"
        vm = provider.describe("unnamed")
        assert [finding.kind for finding in problems(provider, vm, "auto")] == ["invalid_config"]
    finally:
        domain.undefine()


def test_a_data_file_that_an_image_names_is_never_opened(
    provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path
) -> None:
    """Whoever made the image could name any file of the host."""
    secret, image = tmp_path / "secret", rig.directory / "names-data.qcow2"
    options = f"data_file={secret},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, "1M"], check=True)
    domain = rig.connect().defineXML(domain_xml(Machine("data-file", (Disk(image),)), rig.directory))
    try:
        with pytest.raises(VmferryError, match="its own header names") as caught, open_session(provider, "data-file"):
            pass
        assert caught.value.kind == "unsupported"
        assert [one.kind for one in problems(provider, provider.describe("data-file"), "auto")] == ["unsupported"]
    finally:
        domain.undefine()


def test_an_image_that_stands_on_itself_is_refused(provider: LibvirtProvider, rig: LibvirtRig) -> None:
    one, other = (rig.directory / f"round-{name}.qcow2" for name in ("one", "other"))
    for path in (one, other):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    for path, base in ((one, other), (other, one)):
        subprocess.run(["qemu-img", "rebase", "-q", "-u", "-b", base, "-F", "qcow2", path], check=True)
    domain = rig.connect().defineXML(domain_xml(Machine("round", (Disk(one),)), rig.directory))
    try:
        with pytest.raises(VmferryError, match="stands on itself") as caught, open_session(provider, "round"):
            pass
        assert caught.value.kind == "invalid_config"
    finally:
        domain.undefine()


@pytest.mark.parametrize("off", ["qcow2", "raw"], indirect=True)
@pytest.mark.parametrize("trace", ["content", "owner"])
def test_a_vm_that_ran_meanwhile_is_noticed_also_when_it_is_off_again(
    provider: LibvirtProvider, off: tuple[libvirt.virDomain, Path], trace: str
) -> None:
    """As on a file system without locks. Every start leaves its trace: libvirt gives the images to QEMU's user."""
    with open_session(provider, "off") as session:
        read_all(session.disks[0].source, off[1].with_name("copied"))
        session.confirm()
        image = Path(session.vm.disks[0].source)
        if trace == "content":
            with image.open("r+b") as file:
                file.write(image.read_bytes()[:512])
        else:
            os.chown(image, 12345, 12345)
            os.chown(image, 0, 0)
        with pytest.raises(VmferryError, match="was changed") as caught:
            session.confirm()
        assert (caught.value.kind, caught.value.retryable) == ("conflict", True)


def test_another_vm_may_start_on_the_same_backing_file(
    provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path
) -> None:
    base, overlay = guests.mbr_disk(tmp_path / "base.raw", "base"), tmp_path / "overlay.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay], check=True)
    domain = rig.connect().defineXML(domain_xml(Machine("shared", (Disk(overlay),)), rig.directory))
    try:
        with open_session(provider, "shared") as session:
            os.chown(base, 12345, 12345)
            session.confirm()
    finally:
        domain.undefine()


def overridden(rig: LibvirtRig, image: Path, override: str, inside: str) -> libvirt.virDomain:
    """A domain that says something of its disk that the disk's header does not."""
    xml = ET.fromstring(domain_xml(Machine("overridden", (Disk(image, image.suffix[1:]),)), rig.directory))
    element = xml.find(f"devices/disk{inside}")
    assert element is not None
    element.append(ET.fromstring(override))
    return rig.connect().defineXML(ET.tostring(xml, "unicode"))


def refusal(provider: LibvirtProvider) -> str:
    with pytest.raises(VmferryError) as caught, open_session(provider, "overridden"):
        pass
    vm = provider.describe("overridden")
    findings = problems(provider, vm, "auto")
    assert [finding.kind for finding in findings] == [caught.value.kind] == ["unsupported"]
    return caught.value.message


def test_a_slice_of_an_image_is_not_taken_for_the_image(
    provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path
) -> None:
    image = guests.mbr_disk(tmp_path / "container.raw", "container", 2 << 20)
    slices = "<slices><slice type='storage' offset='1048576' size='1048576'/></slices>"
    domain = overridden(rig, image, slices, "/source")
    try:
        assert "slice" in refusal(provider)
    finally:
        domain.undefine()


def test_backing_files_are_those_that_the_guest_would_see(
    provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path
) -> None:
    base = guests.mbr_disk(tmp_path / "base.raw", "base", 2 << 20)
    other = guests.mbr_disk(tmp_path / "other.raw", "other", 2 << 20)
    overlay = tmp_path / "overlay.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay], check=True)
    store = "<backingStore type='file'><format type='{}'/><source file='{}'/>{}</backingStore>"
    for override in (store.format("raw", other, ""), store.format("qcow2", base, ""), "<backingStore/>"):
        domain = overridden(rig, overlay, override, "")
        try:
            assert "backing files" in refusal(provider)
        finally:
            domain.undefine()
    for override in (store.format("raw", base, ""), store.format("raw", base, "<backingStore/>")):
        domain = overridden(rig, overlay, override, "")
        try:
            with open_session(provider, "overridden") as session:
                assert sha256(read_all(session.disks[0].source, tmp_path / "copied")) == sha256(base)
        finally:
            domain.undefine()


def test_powered_off_means_off(provider: LibvirtProvider, rig: LibvirtRig) -> None:
    disk = guests.mbr_disk(rig.directory / "on.raw", "on")
    domain = rig.connect().createXML(domain_xml(Machine("on", (Disk(disk, "raw"),)), rig.directory))
    try:
        vm = provider.describe("on")
        with pytest.raises(VmferryError) as caught, open_session(provider, "on", "powered_off"):
            pass
        assert caught.value.kind == "conflict"
        assert [finding.kind for finding in problems(provider, vm, "powered_off")] == ["conflict"]
    finally:
        domain.destroy()
