# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that are files become others, with no store between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    JobRequest,
    MigrateRequest,
    ProviderSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.migrate_vm import migrate_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.open import open_provider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, VmSpec

from ..appliances.archives import descriptor
from ..images.disks import MIB, run
from .shelf import GUEST, Shelf
from .written import WritingShelf


def migrate(shelf: Shelf, vm: str, format: str, *, check_mode: bool = False, **asked: Any) -> dict[str, Any]:
    landing = shelf.folder / "landing"
    landing.mkdir(exist_ok=True)
    target = ProviderSpec("image", {"url": landing.as_uri(), "storage": {}})
    transfer = TransferOptions(state_dir=str(shelf.folder / "state"), parallel=2)
    placement = Placement("new", disk_format=format, **asked.pop("placement", {}))
    return migrate_vm(MigrateRequest(shelf.provider, target, vm, placement, transfer=transfer, **asked), check_mode)


def holds_the_guest(shelf: Shelf, image: Path, format: str) -> None:
    raw = shelf.folder / "expected.raw"
    raw.write_bytes(GUEST)
    run("qemu-img", "compare", "-f", format, "-F", "raw", image, raw)


def test_an_ova_becomes_a_folder_of_images(shelf: Shelf) -> None:
    shelf.ova()
    result = migrate(shelf, "app.ova", "qcow2")
    first, second = result["migration"]["disks"]
    assert (result["migration"]["verified"], bool(first["digest_root"])) == ("none", True)
    (image,) = (shelf.folder / "landing").rglob("*disk1.qcow2")
    holds_the_guest(shelf, image, "qcow2")
    assert second["bytes_read"] == 0
    assert not migrate(shelf, "app.ova", "qcow2")["changed"]


def test_an_image_becomes_an_ova_in_which_it_is_the_same(shelf: Shelf) -> None:
    shelf.image("web.qcow2", "qcow2")
    there = migrate(shelf, "web", "ova")
    again = migrate_vm(
        MigrateRequest(
            ProviderSpec("image", {"url": (shelf.folder / "landing").as_uri(), "storage": {}}),
            ProviderSpec("image", {"url": shelf.images.as_uri(), "storage": {}}),
            "new.ova",
            Placement("back", disk_format="raw"),
            transfer=TransferOptions(state_dir=str(shelf.folder / "state")),
        ),
        check_mode=False,
    )
    (image,) = shelf.images.rglob("*disk1.raw")
    assert image.read_bytes() == GUEST
    roots = [told["migration"]["disks"][0]["digest_root"] for told in (there, again)]
    assert roots[:1] * 2 == roots


MIGRATION = """
import sys
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.migrate_vm import migrate_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs import requests
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement

source, target, state = sys.argv[1:]
ends = [requests.ProviderSpec("image", {"url": url, "storage": {}}) for url in (source, target)]
placement, transfer = Placement("web", disk_format="qcow2"), requests.TransferOptions(state_dir=state)
migrate_vm(requests.MigrateRequest(*ends, "web.raw", placement, transfer=transfer), check_mode=False)
"""
CONTROLLER = """<Item><rasd:Address>1</rasd:Address><rasd:ElementName>SCSI 1</rasd:ElementName>
 <rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceSubType>lsilogicsas</rasd:ResourceSubType>
 <rasd:ResourceType>6</rasd:ResourceType></Item>"""
CORES = '<vmw:CoresPerSocket ovf:required="false">2</vmw:CoresPerSocket>'


def two_controllers(shelf: Shelf) -> None:
    """An OVF of two empty disks, each on a controller of its own model; its processors have two cores a socket."""
    text = descriptor([("", "d1", str(MIB)), ("", "d2", str(MIB))], items=CONTROLLER).decode()
    before, second, after = text.partition("ovf:/disk/d2")
    text = before + second + after.replace("<rasd:Parent>3<", "<rasd:Parent>4<", 1)
    cores = text.replace("<rasd:ResourceType>3</rasd:ResourceType>", f"<rasd:ResourceType>3</rasd:ResourceType>{CORES}")
    shelf.raw("two.ovf", cores.encode())


def landed(shelf: Shelf) -> dict[str, Any]:
    """The VM that was made."""
    target = ProviderSpec("image", {"url": (shelf.folder / "landing").as_uri(), "storage": {}})
    (vm,) = describe_vms(target, None, {})["vms"]
    assert isinstance(vm, dict)
    return vm


@pytest.mark.parametrize(("disks", "models"), [(("disk-1",), ["lsilogicsas"]), (None, ["VirtualSCSI", "lsilogicsas"])])
def test_a_disk_keeps_the_model_of_its_controller_whichever_others_go_along(
    disks: tuple[str, ...] | None, models: list[str], shelf: Shelf
) -> None:
    two_controllers(shelf)
    migrate(shelf, "two.ovf", "qcow2", disks=disks)
    assert [disk["details"]["controller_model"] for disk in landed(shelf)["disks"]] == models


def test_a_bus_that_the_task_asks_for_has_the_model_that_all_take(shelf: Shelf) -> None:
    two_controllers(shelf)
    migrate(shelf, "two.ovf", "qcow2", placement={"disk_bus": "scsi"})
    assert {disk["details"].get("controller_model", "") for disk in landed(shelf)["disks"]} <= {"", "lsilogic"}


@pytest.mark.parametrize(("cpu", "cores"), [(4, 2), (3, None)])
def test_cores_that_would_leave_a_socket_half_empty_are_dropped(cpu: int, cores: int | None, shelf: Shelf) -> None:
    two_controllers(shelf)
    migrate(shelf, "two.ovf", "qcow2", placement={"cpu": cpu})
    vm = landed(shelf)
    assert (vm["cpu"], vm["details"]["appliance"].get("cores_per_socket")) == (cpu, cores)


def test_a_dead_migration_is_undone_at_the_end_that_it_wrote_to(writing: WritingShelf) -> None:
    """Whoever gives the other one is told, and can still give this."""
    writing.raw("web.raw")
    ended = subprocess.run(
        [sys.executable, "-c", MIGRATION, writing.images.as_uri(), writing.written.as_uri(), str(writing.folder)],
        env={**os.environ, "VMFERRY_FAILPOINT": "text_written", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    (job,) = (writing.folder / "jobs").iterdir()
    asked = JobRequest(job.name, "cancelled", state_dir=str(writing.folder), provider=writing.provider)
    result = end_job(asked, check_mode=False)
    assert (result["job"]["undone"], writing.written.as_uri() in result["warnings"][0]) == (False, True)
    assert writing.files() != []
    result = end_job(replace(asked, provider=writing.target), check_mode=False)
    assert (result["job"]["undone"], writing.files()) == (True, [])


@pytest.mark.parametrize(
    ("provider", "firmware", "said"),
    [("libvirt", "uefi", True), ("libvirt", "bios", False), ("image", "uefi", False)],
)
def test_what_a_firmware_keeps_is_told_to_be_left_behind_before_anything_is_written(
    provider: str, firmware: Any, said: bool, writing: WritingShelf
) -> None:
    disk = DiskSpec("disk-0", "vda", MIB, "raw", "virtio", "/vda")
    vm = VmSpec(provider, "id", "web01", "web01", "powered_off", 1, 512, firmware, (disk,))
    with closing(open_provider("image", writing.target.settings)) as files:
        found = [finding.message for finding in files.check_import(vm, Placement("web"), "export")]
        with files.open_import(vm, {}, Placement("web"), "export", Job("job", "attempt")) as session:
            told = session.warnings
    sentence = "The variables that the firmware of web01 keeps are left behind."
    assert (sentence in found, sentence in told) == (said, said)


def test_files_are_not_read_back_before_they_are_a_vm(shelf: Shelf) -> None:
    shelf.image("web.qcow2", "qcow2")
    found = migrate(shelf, "web", "ova", check_mode=True, verify="content")
    assert [one["kind"] for one in found["findings"] if one["severity"] == "error"] == ["unsupported"]
    with pytest.raises(VmferryError, match="cannot be read back"):
        migrate(shelf, "web", "ova", verify="content")
    assert list((shelf.folder / "landing").iterdir()) == []
