# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing an instance: with its EBS volumes, or without them, which then stay in the account.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html
"""

from __future__ import annotations

from typing import Dict, List

from ..._errors import VmferryError
from ..spec import DiskSpec, VmSpec
from .power import wait_until_gone
from .session import Session

OFF = "powered_off"


def remove_instance(session: Session, vm: VmSpec, disks: bool) -> List[str]:
    """`vm`: as it is now. A sentence for each disk that stays although it was to go. No snapshot goes.

    What becomes of a volume is written into the instance before AWS removes it: then AWS does both, and a run that
    dies in between leaves no volume behind that was to go.
    """
    staying = {disk.name: why for disk in vm.disks for why in [_not_its_alone(vm, disk)] if why} if disks else {}
    goes = {disk.name: disks and disk.name not in staying for disk in vm.disks}
    _say_what_goes(session, vm, goes)
    with session.doing(f"Removing {vm.name}"):
        session.client("ec2").terminate_instances(InstanceIds=[vm.id])
    wait_until_gone(session, vm)
    return [
        f"{disk.id} ({disk.source}) of {vm.name} stays: {staying[disk.name]}."
        for disk in vm.disks
        if disk.name in staying
    ]


def insist_on_removable(session: Session, vm: VmSpec) -> None:
    """As it is now. Raises `conflict`, before anything of it is touched."""
    if vm.power_state != OFF:
        raise VmferryError("conflict", f"{vm.name} is {vm.power_state}, not powered_off.", "Shut it down first.")
    doing = f"Looking whether {vm.name} may be removed"
    with session.doing(doing):
        answer = session.client("ec2").describe_instance_attribute(InstanceId=vm.id, Attribute="disableApiTermination")
    if answer.get("DisableApiTermination", {}).get("Value"):
        hint = "Switch its termination protection off first, if it is really to go."
        raise VmferryError("conflict", f"{vm.name} is protected from termination in AWS.", hint)


def _not_its_alone(vm: VmSpec, disk: DiskSpec) -> str:
    others = [one for one in disk.details["attached_to"] if one != vm.id]
    return f"{', '.join(others)} has it, too" if others else ""


def _say_what_goes(session: Session, vm: VmSpec, goes: Dict[str, bool]) -> None:
    now = {disk.name: disk.details["delete_on_termination"] for disk in vm.disks}
    changes = [
        {"DeviceName": name, "Ebs": {"DeleteOnTermination": gone}} for name, gone in goes.items() if now[name] != gone
    ]
    if changes:
        with session.doing(f"Telling AWS which volumes of {vm.name} go with it"):
            session.client("ec2").modify_instance_attribute(InstanceId=vm.id, BlockDeviceMappings=changes)
