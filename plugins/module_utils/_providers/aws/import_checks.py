# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop an import into AWS, found without changing anything: all of it at once.

Whether the credentials may write and make what they have to is told by no call that changes nothing.
"""

from __future__ import annotations

from time import gmtime, strftime
from typing import Callable, Iterable, Iterator, List, Sequence

from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..base import Placement
from ..finding import Finding
from ..network_names import unknown_networks
from ..placement_options import IN_AN_INVENTORY, ON_PROXMOX, unknown_options
from ..spec import VmSpec
from .import_hardware import fit_findings, hardware_findings, instance_type
from .import_mark import ImportMark, by_attempt
from .import_places import insist_on_key, places_of
from .import_things import called
from .session import Session
from .tags import LONGEST_VALUE

STEPS = ("snapshot", "image", "instance")
_OF_INSTANCES = ("instance_type", "subnet_id", "security_groups", "key_name", "iam_instance_profile")
_Check = Callable[[], Iterable[Finding]]


def import_findings(session: Session, vm: VmSpec, placement: Placement, export_id: str) -> List[Finding]:
    checks: List[_Check] = [
        lambda: option_findings(placement),
        lambda: _of_name(session, placement, export_id),
        lambda: hardware_findings(vm, placement),
    ]
    if (placement.stop_at or "instance") == "instance":
        checks += [
            lambda: unknown_networks(vm, placement),
            lambda: _of_type(session, vm, placement),
            lambda: _of_places(session, vm, placement),
            lambda: _of_power(vm, placement),
        ]
    findings: List[Finding] = []
    for check in checks:
        try:
            findings += check()
        except VmferryError as error:
            findings.append(Finding("error", error.message, error.hint, error.kind))
    return list(dict.fromkeys(findings))  # two may fail over the same


def insist_on_options(placement: Placement) -> None:
    """Raises for the first that means nothing to AWS."""
    for finding in option_findings(placement):
        raise VmferryError(finding.kind, finding.message, finding.hint)  # type: ignore[arg-type]


def option_findings(placement: Placement) -> Iterator[Finding]:
    yield from unknown_options(placement, "aws", (*IN_AN_INVENTORY, *ON_PROXMOX))
    yield from _refused(placement)
    stop_at = placement.stop_at or "instance"
    if stop_at not in STEPS:
        text = f"An import into AWS cannot stop at {stop_at}."
        yield Finding("error", text, f"Set placement.stop_at to one of {', '.join(STEPS)}.", "invalid_config")
    elif stop_at != "instance":
        given = [f"placement.{name}" for name in (*_OF_INSTANCES, "power_on") if getattr(placement, name)]
        given += ["network_map"] if placement.network_map else []
        for name in given:
            text = f"{name} is about an instance, and placement.stop_at: {stop_at} makes none."
            yield Finding("error", text, "Leave one of the two out.", "invalid_config")
    if placement.kms_key_id and not placement.encrypted:
        text = "placement.kms_key_id goes with placement.encrypted: true only."
        yield Finding("error", text, "Set it, or leave the key out.", "invalid_config")
    if placement.kms_key_id and not (placement.kms_key_id.startswith("arn:") and ":key/" in placement.kms_key_id):
        text = f"placement.kms_key_id is {placement.kms_key_id}, which is not the ARN of a key."
        hint = "Give it as arn:aws:kms:REGION:ACCOUNT:key/ID: EBS direct takes no ids and no aliases."
        yield Finding("error", text, hint, "invalid_config")


def _refused(placement: Placement) -> Iterator[Finding]:
    refused = (
        ("storage", "Set placement.volume_type for the type of the volumes."),
        ("disk_format", "Leave it out: volumes have no format."),
        ("disk_bus", "Leave it out: instances have their volumes on NVMe, or on what their type has."),
        ("keep_mac", "Leave it out: AWS gives every network card its MAC address."),
    )
    for name, hint in refused:
        if getattr(placement, name):
            yield Finding("error", f"placement.{name} means nothing to the provider aws.", hint, "unsupported")


def _of_name(session: Session, placement: Placement, export_id: str) -> Iterator[Finding]:
    name = placement.name
    if len(name) > LONGEST_VALUE:
        text = f"{name} has {len(name)} characters, and tags of AWS up to {LONGEST_VALUE}."
        yield Finding("error", text, "Give it a shorter name.", "invalid_config")
    met = called(session, name)
    for unfinished in by_attempt(one.mark for one in met if one.mark is not None and one.mark.unfinished):
        if unfinished.alive is not False:  # else the import itself removes it before it begins
            yield being_made(unfinished)
    for found in met:
        if not found.unfinished and (found.mark is None or found.mark.export != export_id):
            what = f"{'An' if found.kind != 'snapshot' else 'A'} {found.kind} named {name} exists already"
            hint = "Import under another name, or remove it first."
            yield Finding("error", f"{what}: {found.id}.", hint, "conflict")


def being_made(mark: ImportMark) -> Finding:
    hint = WAIT_OR_CANCEL
    if mark.alive is None and mark.held_until:
        until = strftime("%H:%M:%S UTC", gmtime(mark.held_until))
        hint += f" If it died there, what it made is removed by an import after {until}."
    elif mark.alive is None:
        hint += f" If it died there, remove what has the tag vmferry:attempt={mark.attempt}."
    return Finding("error", f"{mark.name} is being made by {mark.describe()}.", hint, "busy")


def _of_type(session: Session, vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    chosen = instance_type(session, vm, placement, _zone_of(session, vm, placement))
    if not placement.instance_type:
        text = f"{placement.name} becomes an instance of the type {chosen.name}, with {chosen.cpu} CPUs and "
        yield Finding(
            "info", f"{text}{chosen.memory_mb} MiB of memory.", "Set placement.instance_type for another one."
        )
    yield from fit_findings(vm, placement, chosen)


def _zone_of(session: Session, vm: VmSpec, placement: Placement) -> str:
    """'' where nobody knows; what is wrong with the places is told of these."""
    try:
        return places_of(session, vm, placement).zone
    except VmferryError:
        return ""


def _of_places(session: Session, vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    if placement.key_name:
        insist_on_key(session, placement.key_name)
    for card in places_of(session, vm, placement).left_out:
        text = f"Nothing says where {card} of {vm.name} goes: the instance is made without it."
        yield Finding("warning", text, "Name a subnet for its network in network_map.")


def _of_power(vm: VmSpec, placement: Placement) -> Sequence[Finding]:
    if placement.power_on:
        return ()
    text = f"EC2 starts every instance that it makes: {placement.name} runs for some seconds before it is stopped."
    hint = "Where its guest must not boot, use placement.stop_at: image, and make the instance when it may."
    return (Finding("warning", text, hint),)
