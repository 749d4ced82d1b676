# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop or weaken an import into files, found without changing anything that stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Sequence

from ..._appliances.ovf_writer import BUSES
from ..._providers.base import Placement
from ..._providers.finding import Finding
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..attempts.litter import probe_key
from ..jobs.findings import told_in
from ..stored.appliance_files import ApplianceTexts
from .import_note import is_over, read_note
from .import_session import taken
from .landing import landed, left_behind, refused_options
from .layouts import FileLayout, is_file_name
from .note_names import note_key

_MIB = 1 << 20


def import_findings(store: Store, vm: VmSpec, placement: Placement) -> list[Finding]:
    findings: list[Finding] = [*refused_options(placement), *left_behind(vm, placement)]
    with told_in(findings):
        known = placement.disk_bus if placement.disk_bus in BUSES else ""  # it was told already
        new = landed(vm, replace(placement, disk_bus=known))
        layout = FileLayout(new, placement.disk_format)
        ApplianceTexts(new, layout.names, layout.images, layout.kind.name)
    with told_in(findings):
        if is_file_name(placement.name):
            findings += _of_name(store, placement.name)
    with told_in(findings):
        store.probe(probe_key())
        findings += _of_space(store, vm)
    return findings


def _of_name(store: Store, name: str) -> Sequence[Finding]:
    """What the dead left is removed before an import begins."""
    found = read_note(store, note_key(name))
    if found is None:
        return taken(store, name)
    note, info = found
    if is_over(store, note, info):
        return []
    error = note.in_use(store)
    return [Finding("error", error.message, error.hint, error.kind)]


def _of_space(store: Store, vm: VmSpec) -> Sequence[Finding]:
    free = store.free_space()
    if free is None:
        return []
    largest = sum(disk.size for disk in vm.disks)
    expected = sum(disk.size if disk.allocated is None else min(disk.size, disk.allocated) for disk in vm.disks)
    text = f"{store.url} has {free // _MIB} MiB free; {vm.name} needs {expected // _MIB} to {largest // _MIB} MiB."
    if free < expected:
        return [Finding("error", text, "Free some space, or set image.url to another place.", "no_space")]
    return [Finding("warning", text, "", "no_space")] if free < largest else []
