# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop an import by tasks of VM Import/Export, besides what stops any import into AWS.

https://docs.aws.amazon.com/vm-import/latest/userguide/vmimport-import-snapshot.html
"""

from __future__ import annotations

from typing import Iterator, List

from ..._errors import VmferryError
from ..base import Placement, VendorTask
from ..finding import Finding
from ..spec import VmSpec
from .import_checks import being_made
from .import_hardware import new_disks
from .import_mark import UNFINISHED
from .import_task import IMAGE_FORMAT, KIND
from .import_tasks_left import being_imported
from .session import Session
from .snapshot_checks import denied
from .staged_image import split_staging
from .staging_checks import bucket_findings
from .tags import STATE, tag_specification

TIB = 1 << 40
LARGEST_DISK = 16 * TIB  # "Volume types and file systems" in the requirements of VM Import/Export, for those with GPT


def task_findings(session: Session, vm: VmSpec, placement: Placement, wish: VendorTask) -> List[Finding]:
    return [
        *_of_disks(vm, placement),
        *bucket_findings(session, wish.staging, is_written=False),
        *_of_name(session, placement, wish),
        *_of_task(session, placement, wish),
    ]


def _of_disks(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    for disk in new_disks(vm, placement):
        if disk.size > LARGEST_DISK:
            text = f"{disk.spec.id} of {vm.name} has {disk.size} bytes, and tasks of AWS import at most {LARGEST_DISK}."
            yield Finding("error", text, "Leave method out, or set it to direct.", "unsupported")


def _of_name(session: Session, placement: Placement, wish: VendorTask) -> Iterator[Finding]:
    for mark in being_imported(session, placement.name, wish.staging):
        if mark.alive is not False:  # else the import itself removes it before it begins
            yield being_made(mark)


def _of_task(session: Session, placement: Placement, wish: VendorTask) -> Iterator[Finding]:
    bucket, prefix = split_staging(wish.staging)
    asked = {
        "DiskContainer": {"Format": IMAGE_FORMAT, "UserBucket": {"S3Bucket": bucket, "S3Key": f"{prefix}disk-0.vmdk"}},
        "RoleName": wish.role,
        "TagSpecifications": [tag_specification(KIND, {STATE: UNFINISHED})],
    }
    try:
        yield from denied(session, "import_snapshot", f"Starting a task to import {placement.name}", **asked)
    except VmferryError as error:
        if error.kind not in ("not_found", "invalid_config", "conflict"):  # of that image, which is not there yet
            raise
