# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What imports have made already, as VMs: an instance, or an image or snapshots where an import was to end there."""

from __future__ import annotations

from typing import Callable, Mapping, Optional, Sequence, Tuple

from ..base import Placement
from ..spec import DiskSpec, VmSpec
from .import_things import Thing, called
from .session import Session
from .snapshot_blocks import GIB
from .tags import DISK, tags_of

_BOOTS: Mapping[str, str] = {"uefi": "uefi", "legacy-bios": "bios", "uefi-preferred": "uefi"}
_ARCHITECTURES: Mapping[str, str] = {"arm64": "aarch64", "i386": "i686"}


def imported(session: Session, name: str, describe: Callable[[str], VmSpec]) -> Optional[Tuple[VmSpec, str]]:
    """The VM of that name, if any, and the export it was made of. One that is not whole is none."""
    found = [thing for thing in called(session, name) if not thing.unfinished]
    for kind in ("instance", "image", "snapshot"):
        of_kind = [thing for thing in found if thing.kind == kind]
        ours = [thing for thing in of_kind if thing.mark is not None]
        for thing in ours or of_kind:
            export = thing.mark.export if thing.mark is not None else ""
            if kind == "instance":
                return describe(thing.id), export
            if kind == "image":
                return image_spec(session, thing, name), export
            same = [one for one in of_kind if one.mark is not None and one.mark.attempt == thing.mark.attempt]  # type: ignore[union-attr]
            return snapshot_spec(session, same, name), export
    return None


def made_otherwise(vm: VmSpec, placement: Placement) -> str:
    """As `Provider.made_otherwise`."""
    made, asked = str(vm.details.get("made", "instance")), placement.stop_at or "instance"
    if made != asked:
        return f"{vm.name} was imported from the same already, as {_WHAT[made]} and not as {_WHAT[asked]}."
    if made != "snapshot" and placement.firmware and vm.firmware != "unknown" and placement.firmware != vm.firmware:
        return f"{vm.name} was imported from the same already, with the firmware {vm.firmware}."
    wanted, has = placement.instance_type, vm.details.get("instance_type", "")
    if made == "instance" and wanted and wanted != has:
        return f"{vm.name} was imported from the same already, as an instance of the type {has}."
    return ""


_WHAT = {"instance": "an instance", "image": "an image", "snapshot": "snapshots"}


def image_spec(session: Session, image: Thing, name: str) -> VmSpec:
    mappings = [one for one in image.said.get("BlockDeviceMappings", ()) if "Ebs" in one]
    mappings.sort(key=lambda one: one["DeviceName"] != image.said.get("RootDeviceName"))
    disks = [_disk(number, one["DeviceName"], one["Ebs"], session.region) for number, one in enumerate(mappings)]
    architecture = image.said.get("Architecture", "x86_64")
    details = {
        "made": "image",
        "image_id": image.id,
        "boot_mode": image.said.get("BootMode", ""),
        "snapshots": [one["Ebs"].get("SnapshotId", "") for one in mappings],
    }
    return _spec(
        session,
        image.id,
        name,
        tuple(disks),
        details,
        firmware=_BOOTS.get(image.said.get("BootMode", ""), "unknown"),
        architecture=_ARCHITECTURES.get(architecture, architecture),
    )


def snapshot_spec(session: Session, snapshots: Sequence[Thing], name: str) -> VmSpec:
    """In the order of the VM's disks."""
    ordered = sorted(snapshots, key=_number_of)
    disks = tuple(
        _disk(
            number,
            f"disk-{number}",
            {"SnapshotId": one.id, "VolumeSize": one.said["VolumeSize"], "Encrypted": one.said.get("Encrypted", False)},
            session.region,
        )
        for number, one in enumerate(ordered)
    )
    details = {"made": "snapshot", "snapshots": [one.id for one in ordered]}
    return _spec(session, ordered[0].id, name, disks, details)


def _number_of(snapshot: Thing) -> int:
    number = tags_of(snapshot.said).get(DISK, "").rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _disk(number: int, name: str, ebs: Mapping[str, object], region: str) -> DiskSpec:
    return DiskSpec(
        id=f"disk-{number}",
        name=name,
        size=int(str(ebs.get("VolumeSize", 0))) * GIB,
        format="raw",
        bus="nvme",
        source=str(ebs.get("SnapshotId", "")),
        storage=region,
        boot=number == 0,
        details={"encrypted": bool(ebs.get("Encrypted", False))},
    )


def _spec(
    session: Session,
    identity: str,
    name: str,
    disks: Tuple[DiskSpec, ...],
    details: Mapping[str, object],
    firmware: str = "unknown",
    architecture: str = "x86_64",
) -> VmSpec:
    return VmSpec(
        provider="aws",
        id=identity,
        name=name,
        path=f"{session.region}/{identity}",
        power_state="unknown",  # of what is no machine yet
        cpu=0,
        memory_mb=0,
        firmware=firmware,  # type: ignore[arg-type]
        disks=disks,
        architecture=architecture,
        details=details,
    )
