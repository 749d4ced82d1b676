# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing may be left behind: looked at from outside, on the hypervisor, in the store and among the processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import libvirt

MARK = "VMFERRY_SYSTEM_TEST"  # in the environment of all that a test starts, and so of all that those start
MACHINES = (b"qemu-system", b"libvirtd")
PATIENCE = 30.0  # seconds for a process that was told to end
RUNNING = 1  # virDomainState


def backup_under_way(domain: libvirt.virDomain) -> str:
    """The XML of the domain's backup job, or an empty text."""
    import libvirt

    if not domain.isActive():
        return ""
    try:
        found: str = domain.backupGetXMLDesc()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_BACKUP:
            raise
        return ""
    return found


def left_on_machine(domain: libvirt.virDomain, runs: bool, kept: Set[str]) -> Iterator[str]:
    """`kept`: the change tokens of committed exports."""
    if backup_under_way(domain):
        yield f"{domain.name()} has a backup job: {backup_under_way(domain)}"
    for checkpoint in domain.listAllCheckpoints():
        if checkpoint.getName() in kept:
            continue
        yield f"{domain.name()} has the checkpoint {checkpoint.getName()}"
    if runs and domain.state()[0] != RUNNING:
        yield f"{domain.name()} does not run: {domain.state()}"


def left_in_store(keys: Sequence[str], uploads: Sequence[str]) -> Iterator[str]:
    """`keys` below the URL. All that may lie there is `<vm>/<export>/…` beside a manifest."""
    committed = {key.rsplit("/", 1)[0] for key in keys if key.endswith("/manifest.json")}
    for key in keys:
        folder = "/".join(key.split("/")[:2])
        if folder not in committed or key.endswith((".part", ".tmp")) or "/." in f"/{key}":
            yield f"the store has {key}"
    for upload in uploads:
        yield f"the store has an unfinished upload of {upload}"


def left_in_folder(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        yield f"{path} is there"


def our_processes() -> Iterator[tuple[int, bytes]]:
    """All that a test's run started and that still lives, this process itself not counted."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        marked = f"{MARK}={os.getpid()}".encode() in environment.split(b"\0")
        if marked and command and not any(machine in command for machine in MACHINES):
            yield int(process.name), command


def left_processes() -> list[str]:
    deadline = time.monotonic() + PATIENCE
    while (found := [f"process {pid} lives: {command[:200]!r}" for pid, command in our_processes()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    return found
