# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an instance lands: the subnets, security groups, key pair and role that a task names, found in the account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence

from ..._errors import VmferryError
from ..base import Placement
from ..network_names import mapped_network
from ..spec import VmSpec
from .session import Session
from .tags import NAME

_SHOWN = 8  # names in a hint


@dataclass(frozen=True)
class Subnet:
    id: str
    zone: str
    vpc: str


@dataclass(frozen=True)
class Places:
    """`subnets`: of each network card, the first of which is the instance's own; none where AWS takes its default."""

    subnets: Sequence[Subnet]
    groups: Sequence[str]  # ids
    left_out: Sequence[str]  # ids of network cards for which nothing says where they go

    @property
    def zone(self) -> str:
        """In which the instance is; '' where AWS chooses."""
        return self.subnets[0].zone if self.subnets else ""


def places_of(session: Session, vm: VmSpec, placement: Placement) -> Places:
    """Raises `not_found`, `conflict` or `invalid_config` for what is not there, or does not go together."""
    wanted: List[str] = []
    left_out: List[str] = []
    for number, nic in enumerate(vm.nics):
        had = nic.network if vm.provider == "aws" else ""
        network = mapped_network(nic, placement) or (placement.subnet_id if number == 0 else "") or had
        if network:
            wanted.append(network)
        elif number == 0:
            wanted.append("")
        else:
            left_out.append(nic.id)
    wanted = wanted or [placement.subnet_id]
    if wanted[0] == "" and len(wanted) > 1:
        text = f"Nothing says in which subnet the first network card of {placement.name} is to be."
        raise VmferryError("invalid_config", text, "Set placement.subnet_id, or name its network in network_map.")
    subnets = [_subnet(session, network) for network in wanted if network]
    vpc = subnets[0].vpc if subnets else _default_vpc(session, placement)
    zones = sorted({subnet.zone for subnet in subnets})
    if len(zones) > 1:
        text = f"The subnets of {placement.name} are in {' and '.join(zones)}, and an instance is in one zone."
        raise VmferryError("invalid_config", text, "Choose subnets of one zone.")
    return Places(subnets, [_group(session, wanted, vpc) for wanted in placement.security_groups], left_out)


def insist_on_key(session: Session, name: str) -> None:
    if not _found(session, "describe_key_pairs", "KeyPairs", "key-name", name):
        hint = "Import it there first, or leave placement.key_name out."
        raise VmferryError("not_found", f"There is no key pair {name} in {session.region}.", hint)


def _subnet(session: Session, wanted: str) -> Subnet:
    by = "subnet-id" if wanted.startswith("subnet-") else f"tag:{NAME}"
    found = _found(session, "describe_subnets", "Subnets", by, wanted)
    if len(found) > 1:
        ids = ", ".join(sorted(one["SubnetId"] for one in found)[:_SHOWN])
        raise VmferryError("conflict", f"{len(found)} subnets are called {wanted}.", f"Give its id: {ids}.")
    if not found:
        text = f"There is no subnet {wanted} in {session.region}."
        raise VmferryError("not_found", text, "Give the id of one in placement.subnet_id, or in network_map.")
    return Subnet(found[0]["SubnetId"], found[0]["AvailabilityZone"], found[0]["VpcId"])


def _default_vpc(session: Session, placement: Placement) -> str:
    """In which an instance is that names no subnet."""
    found = _found(session, "describe_subnets", "Subnets", "default-for-az", "true")
    if not found:
        text = f"Nothing says in which subnet {placement.name} is to be, and {session.region} has no default VPC."
        raise VmferryError("invalid_config", text, "Set placement.subnet_id, or name its network in network_map.")
    return str(found[0]["VpcId"])


def _group(session: Session, wanted: str, vpc: str) -> str:
    by = "group-id" if wanted.startswith("sg-") else "group-name"
    found = _found(session, "describe_security_groups", "SecurityGroups", by, wanted)
    here = [one for one in found if one.get("VpcId") == vpc]
    if not here:
        text = f"There is no security group {wanted} in {vpc}."
        raise VmferryError("not_found", text, "Name one of the VPC of the subnet in placement.security_groups.")
    if len(here) > 1:
        ids = ", ".join(sorted(one["GroupId"] for one in here)[:_SHOWN])
        raise VmferryError("conflict", f"{len(here)} security groups are called {wanted}.", f"Give its id: {ids}.")
    return str(here[0]["GroupId"])


def _found(session: Session, call: str, key: str, by: str, value: str) -> Sequence[Mapping[str, Any]]:
    with session.doing(f"Looking for {value}"):
        return list(getattr(session.client("ec2"), call)(Filters=[{"Name": by, "Values": [value]}])[key])


def network_request(places: Places) -> Dict[str, Any]:
    """As RunInstances takes it: of several cards, each says its own."""
    groups = list(places.groups)
    if len(places.subnets) < 2:
        asked: Dict[str, Any] = {"SecurityGroupIds": groups} if groups else {}
        if places.subnets:
            asked["SubnetId"] = places.subnets[0].id
        return asked
    each: Mapping[str, Any] = {"Groups": groups} if groups else {}
    cards = [
        {"DeviceIndex": number, "SubnetId": subnet.id, "DeleteOnTermination": True, **each}
        for number, subnet in enumerate(places.subnets)
    ]
    return {"NetworkInterfaces": cards}
