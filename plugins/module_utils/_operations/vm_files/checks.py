# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop or weaken an export of files, found without changing anything."""

from __future__ import annotations

from typing import Sequence

from ..._providers.base import Consistency
from ..._providers.finding import Finding
from ..._providers.spec import DiskSpec, VmSpec
from ..._stores.base import Store
from ..jobs.findings import told_in
from ..stored.read_appliance import inspected_disks, stored_appliance
from .file_export import files_of, warnings_of
from .held_files import HeldFiles
from .image_disk import insist_on_readable
from .inventory import FileVm

_UNKNOWN = "Nobody can tell from a file how its guest was stopped. Use auto or crash_consistent."


def export_findings(
    store: Store, files: FileVm, vm: VmSpec, disks: Sequence[DiskSpec], consistency: Consistency, *, is_path: bool
) -> list[Finding]:
    """Every image is inspected to its end."""
    findings: list[Finding] = []
    if consistency not in ("auto", "crash_consistent"):
        text = f"The files of {vm.name} cannot be exported with the consistency {consistency}."
        findings.append(Finding("error", text, _UNKNOWN, "unsupported"))
    appliance = None
    with told_in(findings):
        if files.is_appliance:
            appliance = stored_appliance(store, files.path)
            inspected_disks(appliance)
            findings += [Finding("warning", text) for text in warnings_of(appliance)]
    chosen = {disk.source for disk in disks}
    for info in files.images:
        with told_in(findings):
            if store.location(info.key) in chosen:
                insist_on_readable(store, info)
    with told_in(findings):
        HeldFiles(store, files_of(store, files, appliance), is_path=is_path).close()
    return findings
