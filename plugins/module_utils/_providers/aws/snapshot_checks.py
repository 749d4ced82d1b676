# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop or weaken work on the snapshots of an instance, found without changing anything."""

from __future__ import annotations

from typing import Any, Iterator, Sequence

from ..._errors import VmferryError
from ..finding import Finding
from ..snapshots import SnapshotWish
from ..spec import VmSpec
from .asking import every_of
from .session import Session
from .snapshot_owner import TEMPORARY
from .snapshot_sets import SnapshotSet
from .tags import STATE, VM, tag_specification


def create_findings(session: Session, vm: VmSpec, wish: SnapshotWish) -> Iterator[Finding]:
    yield from _of_wish(vm, wish)
    if not vm.disks:
        yield Finding("error", f"{vm.name} has no EBS volume.", "Nothing else has snapshots on AWS.", "unsupported")
    elif vm.details["instance_store_gb"]:
        text = f"The instance store of {vm.name} is no part of the snapshot."
        yield Finding("warning", text, "Keep what matters on EBS volumes.")
    yield from denied(
        session,
        "create_snapshots",
        f"Making a snapshot of {vm.name}",
        InstanceSpecification={"InstanceId": vm.id},
        TagSpecifications=[tag_specification("snapshot", {VM: vm.id})],  # which takes a permission of its own
    )


def remove_findings(session: Session, vm: VmSpec, found: SnapshotSet) -> Iterator[Finding]:
    if found.chain and found.tags.get(STATE) != TEMPORARY:
        text = f"{found.name} tells the next export of the chain {found.chain} what changed on {vm.name}."
        hint = (
            "Remove the exports of that chain with export_cleanup; or in AWS, and the next export will be a full one."
        )
        yield Finding("error", text, hint, "conflict")
    elif found.transfer:
        text = f"{found.name} was made by the job {found.transfer}, to export or import {vm.name}."
        hint = "If that job is dead, export_cleanup with orphans: true removes what it left."
        yield Finding("error", text, hint, "conflict")
    doing = f"Looking who needs the snapshot {found.name} of {vm.name}"
    name = "block-device-mapping.snapshot-id"
    images = every_of(session, "describe_images", doing, name, found.ids, Owners=["self"])
    if images:
        text = f"The AMI {images[0]['ImageId']} is made of the snapshot {found.name} of {vm.name}."
        yield Finding("error", text, "Deregister it first, if nobody needs it.", "conflict")
    for one in found.ids[:1]:
        yield from denied(session, "delete_snapshot", f"Removing {one}", SnapshotId=one)


def denied(session: Session, operation: str, doing: str, **asked: Any) -> Sequence[Finding]:
    """Nothing where the credentials' policy allows it: AWS tells that of most operations without doing them."""
    from botocore.exceptions import ClientError

    try:
        with session.doing(doing):
            try:
                getattr(session.client("ec2"), operation)(DryRun=True, **asked)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "DryRunOperation":
                    raise
    except VmferryError as error:
        if error.kind != "permission_denied":
            raise
        return [Finding("error", error.message, error.hint, error.kind)]
    return []


def _of_wish(vm: VmSpec, wish: SnapshotWish) -> Iterator[Finding]:
    running = vm.power_state == "powered_on"
    if wish.memory:
        yield Finding("error", "Snapshots on AWS hold no memory.", "Leave memory out.", "unsupported")
    if wish.method != "auto":
        text = f"Snapshots on AWS are EBS's own, neither internal nor external: {wish.method} means nothing there."
        yield Finding("error", text, "Leave method out.", "unsupported")
    if wish.temporary:
        hint = "Leave snapshot out: exports make snapshots of their own and remove them. Or set snapshot.keep."
        yield Finding("error", "No snapshot is made on AWS to be removed behind an export.", hint, "unsupported")
    if wish.quiesce == "required" and running:
        text = f"AWS cannot freeze the file systems of {vm.name}."
        hint = "Shut it down first with vmferry.migrate.vm, or freeze them from within, or leave quiesce out."
        yield Finding("error", text, hint, "unsupported")
    elif wish.quiesce == "auto" and running:
        yield Finding("info", f"The snapshot of {vm.name} will be crash-consistent, as all of running VMs on AWS are.")
