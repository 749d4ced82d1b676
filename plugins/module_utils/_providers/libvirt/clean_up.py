# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dead runs of ours left on this host: found by their folders and by the backup job itself, undone in order."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..._errors import VmferryError
from ..spec import VmSpec
from . import backup_job
from .connection import Connection
from .describe import describe
from .import_leftovers import undo_import
from .work_folder import WorkFolder, read_folder, work_folders

END_PATIENCE = 30.0


def clean_up(connection: Connection, vm: VmSpec, scratch_dir: str) -> list[str]:
    """One sentence for each thing undone. Raises `busy` for a job that is alive or not ours."""
    said = []
    job = backup_job.current_job(connection, vm.id)
    folders = {folder.path: folder for folder in work_folders(scratch_dir) if folder.record.vm_id == vm.id}
    if job is not None:
        folder = _folder_of(job, vm)
        folders.pop(folder.path, None)
        _insist_on_death(folder, vm.name)
        backup_job.end(connection, vm.id, job.socket, END_PATIENCE)
        with suppress(FileNotFoundError):
            Path(job.socket).unlink()
        folder.remove()
        said.append(f"Aborted the backup job that a dead {folder.record.describe()} had left on {vm.name}.")
    for folder in folders.values():
        if folder.record.purpose == "import":
            continue
        _insist_on_death(folder, vm.name)
        folder.remove()
        said.append(f"Removed {folder.path}, left by a dead {folder.record.describe()}.")
    return said


def clean_up_imports(connection: Connection, scratch_dir: str) -> list[str]:
    """Of every dead import on this host, whatever VM it was to make."""
    said = []
    for folder in work_folders(scratch_dir):
        if folder.record.purpose == "import" and folder.record.alive is False:
            said.append(undo_import(connection, folder))
    return said


def undo_job(connection: Connection, job_id: str, scratch_dir: str) -> list[str]:
    """As `clean_up`, of one job on whatever VM it worked."""
    mine = [folder for folder in work_folders(scratch_dir) if folder.record.job_id == job_id]
    said = []
    for folder in mine:
        if folder.record.purpose == "import":
            _insist_on_death(folder, folder.record.vm_name)
            said.append(undo_import(connection, folder))
        else:
            said += clean_up(connection, describe(connection, folder.record.vm_id), scratch_dir)
    return said


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
    hint = "Wait until it is done, or cancel it."
    if folder.record.alive is None:
        hint = f"It runs, or ran, in another container or on another host. If it is dead, remove {folder.path}."
    raise VmferryError("busy", f"{vm_name} is in use by {folder.record.describe()}.", hint)
