# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the folders that a snapshot task works in can be written to, and have room."""

from __future__ import annotations

import os
from typing import Iterator, Literal, Mapping, Sequence

from ..finding import Finding
from ..spec import DiskSpec
from .scratch import MIB, reserve_of
from .work_folder import free_bytes

ROOT = "Run the task as root (become: true)."
Demand = Literal["some", "all", "none"]
PAUSED = "Free some space: a guest is paused when there is none left."


def room_findings(needs: Mapping[str, int], what: str, demand: Demand = "some") -> Iterator[Finding]:
    """`needs`: bytes, at most, by folder. Folders of one file system share its room. `demand`: what of it must be there
    for the task to begin; where there is less than all of it, it warns.
    """
    wanted: dict[int, int] = {}
    first: dict[int, str] = {}
    for folder, expected in needs.items():
        try:
            device = os.stat(folder).st_dev  # noqa: PTH116
        except OSError as error:
            yield Finding("error", f"{folder} cannot be used: {error.strerror}.", "", "not_found")
            continue
        wanted[device] = wanted.get(device, 0) + expected
        first.setdefault(device, folder)
    for device, folder in first.items():
        yield from _of_file_system(folder, wanted[device], what, demand)


def _of_file_system(folder: str, expected: int, what: str, demand: Demand) -> Iterator[Finding]:
    free, reserve = free_bytes(folder), reserve_of(folder)
    text = (
        f"{folder} has {free // MIB} MiB free, {reserve // MIB} of which must stay free; {what} may take "
        f"{-(-expected // MIB)} MiB there."
    )
    if (demand != "none" and free <= reserve) or (demand == "all" and free - reserve < expected):
        yield Finding("error", text, PAUSED, "no_space")
    elif free - reserve < expected:
        yield Finding("warning", text, PAUSED, "no_space")


def access_findings(folders: Sequence[str], why: str) -> Iterator[Finding]:
    for folder in dict.fromkeys(folders):
        if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):  # noqa: PTH112
            yield Finding("error", f"{folder} cannot be written to, and {why}.", ROOT, "permission_denied")


def scratch_findings(scratch_dir: str) -> Iterator[Finding]:
    if not os.path.isdir(scratch_dir):  # noqa: PTH112
        hint = "Set scratch_dir to an existing folder."
        yield Finding("error", f"The scratch folder {scratch_dir} does not exist.", hint, "not_found")
    yield from access_findings([scratch_dir], "what a killed task leaves is written down there")


def folder_of(path: str) -> str:
    return os.path.dirname(path)  # noqa: PTH120


def by_folder(disks: Sequence[DiskSpec], part: int) -> dict[str, int]:
    """One in so many of their bytes."""
    found: dict[str, int] = {}
    for disk in disks:
        found[folder_of(disk.source)] = found.get(folder_of(disk.source), 0) + disk.size // part
    return found
