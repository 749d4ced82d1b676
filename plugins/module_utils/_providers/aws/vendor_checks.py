# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What VM Import/Export does not export, told before anything is made.

https://docs.aws.amazon.com/vm-import/latest/userguide/limits-image-export.html
"""

from __future__ import annotations

from typing import Iterator, List, Sequence

from ..._errors import VmferryError
from ..base import VendorTask
from ..finding import Finding
from ..spec import DiskSpec, VmSpec
from .session import Session
from .snapshot_checks import denied
from .staged_image import split_staging
from .staging_checks import bucket_findings
from .vendor_task import IMAGE_FORMAT, under_way

TIB = 1 << 40
AT_ONCE = 5  # tasks of an account in a region, unless AWS raised that
DIRECT = "Set method: direct, which exports it."
_LICENSED = ("Windows", "SQL Server")  # as PlatformDetails tells it
_BOOT_DISK = "A task of AWS exports the boot disk of a VM, and that alone"


def insist_on_one_disk(vm: VmSpec, disks: Sequence[DiskSpec]) -> DiskSpec:
    """Raises `unsupported`."""
    if len(disks) != 1 or not disks[0].boot:
        names = ", ".join(disk.name for disk in disks) or "no disk"
        boot = next((disk.id for disk in vm.disks if disk.boot), "")
        hint = f"Set disks: [{boot}], or method: direct." if boot else DIRECT
        raise VmferryError("unsupported", f"{_BOOT_DISK}, not {names} of {vm.name}.", hint)
    return disks[0]


def vendor_findings(session: Session, vm: VmSpec, disks: Sequence[DiskSpec], wish: VendorTask) -> List[Finding]:
    """Besides those of any export from AWS."""
    found = [*_of_vm(vm, disks), *bucket_findings(session, wish.staging, is_written=True)]
    if wish.role:
        return [*found, *_of_account(session, vm, wish)]
    from .instance_task_checks import instance_task_findings

    return [*found, *instance_task_findings(session, vm, wish)]


def _of_vm(vm: VmSpec, disks: Sequence[DiskSpec]) -> Iterator[Finding]:
    try:
        insist_on_one_disk(vm, disks)
    except VmferryError as error:
        yield Finding("error", error.message, error.hint, error.kind)
    if vm.details["platform"].lower() == "windows" or any(word in vm.guest_os for word in _LICENSED):
        yield _never(f"A task of AWS exports no Windows or SQL Server, and {vm.name} runs {vm.guest_os}.")
    if vm.details["product_codes"]:
        yield _never(f"AWS exports nothing that comes from its Marketplace, as {vm.name} does.")
    for disk in disks:
        if disk.details["encrypted"]:
            yield _never(f"AWS exports no encrypted volumes, as {disk.name} of {vm.name} is one.")
        if disk.size > TIB:
            yield _never(f"AWS exports volumes of up to 1 TiB, and {disk.name} of {vm.name} has {disk.size} bytes.")


def _of_account(session: Session, vm: VmSpec, wish: VendorTask) -> Iterator[Finding]:
    bucket, prefix = split_staging(wish.staging)
    running = under_way(session, "Looking at the export tasks of the account")
    if len(running) >= AT_ONCE:
        text = f"{len(running)} export tasks of the account run in {session.region}, and AWS allows {AT_ONCE} at once"
        yield Finding("warning", f"{text} unless it was asked for more.", "Wait for one of them, or ask AWS for more.")
    asked = {
        "DiskImageFormat": IMAGE_FORMAT,
        "ImageId": vm.details["image_id"],  # in the place of the one that is to be made
        "RoleName": wish.role,
        "S3ExportLocation": {"S3Bucket": bucket, "S3Prefix": prefix},
    }
    try:
        found = denied(session, "export_image", f"Starting a task to export {vm.name}", **asked)
    except VmferryError as error:
        if error.kind not in ("not_found", "unsupported", "conflict"):  # of that image, which may be gone, or another's
            raise
        found = []
    yield from found


def _never(text: str) -> Finding:
    return Finding("error", text, DIRECT, "unsupported")
