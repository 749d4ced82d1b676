# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dead runs of ours left on this host: found by their folders and by the backup job itself, undone in order."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Collection, Iterator

from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..base import Undone
from ..spec import VmSpec
from . import backup_job
from .checkpoints import TOKEN, remove
from .connection import Connection
from .describe import describe
from .import_leftovers import undo_import
from .watchdog_launcher import is_watched
from .work_folder import WorkFolder, read_folder, work_folders

END_PATIENCE = 30.0


def clean_up(
    connection: Connection, vm: VmSpec, scratch_dir: str, held_by: Collection[str] | None = None
) -> list[Undone]:
    """Raises `busy` for a job that is alive or not ours.

    `held_by`: of what the watchdogs of dead runs hold for the next one, only what these attempts left; None: all of it.
    A watchdog ends the rest itself.
    """

    def may_end(folder: WorkFolder) -> bool:
        return held_by is None or folder.record.attempt in held_by

    undone: list[Undone] = []
    job = backup_job.current_job(connection, vm.id)
    folders = {folder.path: folder for folder in work_folders(scratch_dir) if folder.record.vm_id == vm.id}
    if job is not None:
        folder = _folder_of(job, vm)
        folders.pop(folder.path, None)
        _insist_on_death(folder, vm.name)
        held = is_watched(folder.path)
        if held and not may_end(folder):
            return undone
        backup_job.end(connection, vm.id, job.socket, END_PATIENCE)
        with suppress(FileNotFoundError):
            Path(job.socket).unlink()
        _undo_checkpoints(connection, vm, folder)
        folder.remove()
        sentence = f"Aborted the backup job that a dead {folder.record.describe()} had left on {vm.name}."
        undone.append(_undone(sentence, folder, held))
    for folder in folders.values():
        if folder.record.purpose == "import":
            continue
        _insist_on_death(folder, vm.name)
        held = is_watched(folder.path)
        if held and not may_end(folder):
            continue
        _undo_checkpoints(connection, vm, folder)
        _undo_overlays(connection, vm, folder)
        folder.remove()
        undone.append(_undone(f"Removed {folder.path}, left by a dead {folder.record.describe()}.", folder, held))
    return undone


def _undo_overlays(connection: Connection, vm: VmSpec, folder: WorkFolder) -> None:
    from .snapshot_remove import undo_overlays  # much, of which most runs need nothing

    undo_overlays(connection, vm, folder)


def _undone(sentence: str, folder: WorkFolder, held: bool) -> Undone:
    record = folder.record
    return Undone(sentence, record.vm_name, record.job_id, record.attempt) if held else Undone(sentence)


def clean_up_imports(connection: Connection, scratch_dir: str) -> list[tuple[str, str]]:
    """Of every dead import on this host: the VM it was to make, and a sentence."""
    said = []
    for folder in work_folders(scratch_dir):
        if folder.record.purpose == "import" and folder.record.alive is False:
            said.append((folder.record.vm_name, undo_import(connection, folder)))
    return said


def files_of_the_dead(scratch_dir: str) -> Iterator[Path]:
    """Of imports that came as far as their final names; whether a VM has them is not asked."""
    for folder in work_folders(scratch_dir):
        if folder.record.purpose == "import" and folder.record.alive is False:
            yield from (Path(made["final"]) for made in folder.record.made if "final" in made)


def undo_job(connection: Connection, job_id: str, scratch_dir: str) -> list[str]:
    """As `clean_up`, of one job on whatever VM it worked."""
    mine = [folder for folder in work_folders(scratch_dir) if folder.record.job_id == job_id]
    said = []
    for folder in mine:
        if folder.record.purpose == "import":
            _insist_on_death(folder, folder.record.vm_name)
            said.append(undo_import(connection, folder))
        elif folder.record.purpose == "export" and _is_gone(connection, folder.record.vm_id):
            _insist_on_death(folder, folder.record.vm_name)
            said.append(_undo_of_gone_vm(folder))
        else:
            vm = describe(connection, folder.record.vm_id)
            said += [undone.sentence for undone in clean_up(connection, vm, scratch_dir)]
    return said


def clean_up_gone_vms(connection: Connection, scratch_dir: str) -> list[str]:
    """Exports of VMs that are not there any more, so that no `clean_up` of a VM would come across them."""
    return [
        _undo_of_gone_vm(folder)
        for folder in work_folders(scratch_dir)
        if folder.record.purpose == "export"
        and folder.record.alive is False
        and not is_watched(folder.path)
        and _is_gone(connection, folder.record.vm_id)
    ]


def _is_gone(connection: Connection, vm_id: str) -> bool:
    try:
        describe(connection, vm_id)
    except VmferryError as error:
        if error.kind != "not_found":
            raise
        return True
    return False


def _undo_of_gone_vm(folder: WorkFolder) -> str:
    """Its job and its checkpoints went with it. Bitmaps in its images are known to the watchdog alone."""
    deadline = time.monotonic() + END_PATIENCE
    while is_watched(folder.path) and time.monotonic() < deadline:
        time.sleep(0.1)
    folder.remove()
    return (
        f"Removed {folder.path}, left by a dead {folder.record.describe()} on {folder.record.vm_name}, which is gone."
    )


def _undo_checkpoints(connection: Connection, vm: VmSpec, folder: WorkFolder) -> None:
    """Those of an export that was not about to commit. Its watchdog may be at the same images just now."""
    deadline = time.monotonic() + END_PATIENCE
    for what in folder.record.made:
        while TOKEN.fullmatch(what.get("checkpoint", "")):
            try:
                remove(connection, vm.id, what["checkpoint"])
                break
            except VmferryError as error:
                if error.kind != "busy" or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)


def _folder_of(job: backup_job.BackupJob, vm: VmSpec) -> WorkFolder:
    folder = read_folder(job.folder) if job.folder is not None else None
    if folder is None or folder.record.vm_id != vm.id:
        raise VmferryError(
            "busy",
            f"{vm.name} has a backup job of another program, {job.description}.",
            f"Wait until it is done. If its owner is dead: virsh domjobabort {vm.name}",
        )
    return folder


def _insist_on_death(folder: WorkFolder, vm_name: str) -> None:
    if folder.record.alive is False:
        return
    hint = WAIT_OR_CANCEL
    if folder.record.alive is None:
        hint = f"It runs, or ran, in another container or on another host. If it is dead, remove {folder.path}."
    raise VmferryError("busy", f"{vm_name} is in use by {folder.record.describe()}.", hint)
