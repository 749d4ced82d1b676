# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dead runs of ours left on this host: found by their folders and by the backup job itself, undone in order."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Iterator

from ..._errors import WAIT_OR_CANCEL, VmferryError
from ..spec import VmSpec
from . import backup_job
from .checkpoints import TOKEN, remove
from .connection import Connection
from .describe import describe
from .import_leftovers import undo_import
from .snapshot_remove import undo_overlays
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
        _undo_checkpoints(connection, vm, folder)
        folder.remove()
        said.append(f"Aborted the backup job that a dead {folder.record.describe()} had left on {vm.name}.")
    for folder in folders.values():
        if folder.record.purpose == "import":
            continue
        _insist_on_death(folder, vm.name)
        _undo_checkpoints(connection, vm, folder)
        undo_overlays(connection, vm, folder)
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
        else:
            said += clean_up(connection, describe(connection, folder.record.vm_id), scratch_dir)
    return said


def _undo_checkpoints(connection: Connection, vm: VmSpec, folder: WorkFolder) -> None:
    """Those of an export that was not about to commit."""
    for what in folder.record.made:
        if TOKEN.fullmatch(what.get("checkpoint", "")):
            remove(connection, vm.id, what["checkpoint"])


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
