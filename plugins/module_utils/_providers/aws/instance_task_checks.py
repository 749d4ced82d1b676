# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What VM Import/Export does not export of an instance itself, besides what it exports in no way.

https://docs.aws.amazon.com/vm-import/latest/userguide/vmexport-limits.html and vmexport-prerequisites.html.
That AWS may reboot an instance over it: export-instance.html there.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Set

from ..._errors import VmferryError
from ..base import VendorTask
from ..finding import Finding
from ..spec import VmSpec
from .asking import every, of
from .session import Session
from .staged_image import split_staging
from .vendor_task import OF_IMAGE, OF_INSTANCE, under_way

AT_ONCE = 5  # tasks of an account in a region, of either kind, unless AWS raised that
HINT = "Name a role for VM Import/Export in task_role, which exports it; or set method: direct."
_NEEDED = {"WRITE", "READ_ACP"}
_ACL_HINT = (
    "Grant both to the account of VM Import/Export in your region, which has to be able to by the bucket's Object "
    "Ownership: https://docs.aws.amazon.com/vm-import/latest/userguide/vmexport-prerequisites.html. Or name a role for "
    "VM Import/Export in task_role, or set method: direct."
)


def insist_on_off(vm: VmSpec) -> None:
    """Raises `conflict`."""
    if vm.power_state != "powered_off":
        text = f"Without a role, AWS may reboot {vm.name} while it exports it, and it is {vm.power_state}."
        raise VmferryError("conflict", text, f"Shut it down first. {HINT}")


def instance_task_findings(session: Session, vm: VmSpec, wish: VendorTask) -> Iterator[Finding]:
    try:
        insist_on_off(vm)
    except VmferryError as error:
        yield Finding("error", error.message, error.hint, error.kind)
    if len(vm.disks) > 1:
        yield _never(f"Without a role, AWS exports instances of one disk, and {vm.name} has {len(vm.disks)}.")
    if len(vm.nics) > 1:
        yield _never(f"Without a role, AWS exports instances of one network card, and {vm.name} has {len(vm.nics)}.")
    if vm.details["instance_store_gb"]:
        yield _never(f"Without a role, AWS exports no instance with an instance store, as {vm.name} has one.")
    yield from _of_image(session, vm)
    yield from _of_acl(session, wish)
    running = [
        one for kind in (OF_IMAGE, OF_INSTANCE) for one in under_way(session, "Looking at the export tasks", kind)
    ]
    if len(running) >= AT_ONCE:
        text = f"{len(running)} export tasks of the account run in {session.region}, and AWS allows {AT_ONCE} at once"
        yield Finding("warning", f"{text} unless it was asked for more.", "Wait for one of them, or ask AWS for more.")


def _of_image(session: Session, vm: VmSpec) -> Iterator[Finding]:
    """That it was launched of, which nobody can tell to have been imported once it is gone."""
    image = vm.details["image_id"]
    if not every(session, "describe_images", f"Looking at the AMI of {vm.name}", [of("image-id", [image])]):
        text = f"The AMI {image} of {vm.name} is gone. If it was imported, AWS does not export the instance without it."
        yield Finding("warning", text, HINT)


def _of_acl(session: Session, wish: VendorTask) -> Iterator[Finding]:
    bucket, _prefix = split_staging(wish.staging)
    try:
        with session.doing(f"Looking who may write to the staging bucket {bucket}"):
            told = session.client("s3").get_bucket_acl(Bucket=bucket, ExpectedBucketOwner=session.account)
    except VmferryError as error:
        if error.kind == "not_found":  # which was told
            return
        if error.kind != "permission_denied":
            raise
        yield Finding("warning", error.message, f"AWS needs {' and '.join(sorted(_NEEDED))} in its ACL.")
        return
    if not _granted_to_others(told) >= _NEEDED:
        text = f"Without a role, AWS writes to {bucket} by its ACL, which grants WRITE and READ_ACP to nobody else."
        yield Finding("error", text, _ACL_HINT, "invalid_config")


def _granted_to_others(told: Mapping[str, Any]) -> Set[str]:
    owner = (told.get("Owner") or {}).get("ID", "")
    grants = [one for one in told.get("Grants") or () if (one.get("Grantee") or {}).get("ID", owner) != owner]
    said = {str(one.get("Permission", "")) for one in grants}
    return said | _NEEDED if "FULL_CONTROL" in said else said


def _never(text: str) -> Finding:
    return Finding("error", text, HINT, "unsupported")
