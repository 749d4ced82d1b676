# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of its own for every attempt, which says whose it is and what was made: `<scratch_dir>/vmferry-<attempt>`.

    owner.json   whose attempt, of which VM, and every effect that has to be undone, each written before it happens
    qemu/        scratch files and the socket of a backup job

QEMU runs as a user of its own, must reach its scratch files and must create the socket itself: `qemu/` is that user's
alone, and the folder around it lets others pass (0711) but not look. The default is below /var/tmp, which is on disk
(a scratch file may grow as large as its disk), survives a reboot, and exists everywhere. It is also everybody's: a
folder that does not belong to this user is not believed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterator, Literal, Mapping

from ..._errors import VmferryError
from ..._transfer.owner import current_owner, is_of_earlier_boot, is_owner_alive
from ..job import Job

DEFAULT_SCRATCH = "/var/tmp"
NAME = re.compile(r"vmferry-[0-9a-f]{8}")
OWNER = "owner.json"
RELEASED = {"released": True}  # in the place of an owner that left everything for another to take over
Purpose = Literal["export", "import", "snapshot"]


@dataclass(frozen=True)
class Record:
    """What `owner.json` says. `made`: what has to be undone, in the words of whoever made it."""

    purpose: Purpose
    vm_id: str
    vm_name: str
    job_id: str
    attempt: str
    owner: Mapping[str, Any]
    started_at: float
    made: tuple[Mapping[str, str], ...] = ()

    @property
    def alive(self) -> bool | None:
        """None where this process cannot tell: the owner is in another container or on another host."""
        gone = self.owner == RELEASED or is_of_earlier_boot(self.owner)
        return False if gone else is_owner_alive(self.owner)

    def describe(self) -> str:
        where = f"process {self.owner.get('pid', '?')} on {self.owner.get('hostname', '?')}"
        return f"{self.purpose} job {self.job_id} ({where}, for {max(0, int(time.time() - self.started_at))} s)"


class WorkFolder:
    """Made by `create`; gone after `remove`."""

    def __init__(self, path: Path, record: Record) -> None:
        self.path, self.record = path, record

    @classmethod
    def create(cls, scratch_dir: str, purpose: Purpose, vm_id: str, vm_name: str, job: Job) -> WorkFolder:
        """Raises `conflict`, `not_found`, `permission_denied` or `no_space`."""
        path = Path(scratch_dir) / f"vmferry-{job.attempt}"
        record = Record(purpose, vm_id, vm_name, job.job_id, job.attempt, current_owner(), time.time())
        try:
            path.mkdir(mode=0o700)
            folder = cls(path, record)
            folder._write(record)
            path.chmod(0o711)  # not by mkdir, whose mode the umask may narrow
        except OSError as error:
            raise _cannot_use(scratch_dir, error) from error
        return folder

    @staticmethod
    def exists(scratch_dir: str, job: Job) -> bool:
        return read_folder(_path(scratch_dir, job)) is not None

    @classmethod
    def take_over(cls, scratch_dir: str, vm_id: str, job: Job) -> WorkFolder:
        """Of a dead run of the same attempt, whose watchdog goes once there is another. Raises `not_found`."""
        folder = read_folder(_path(scratch_dir, job))
        record = folder.record if folder is not None else None
        if folder is None or record is None or record.vm_id != vm_id or record.purpose != "export":
            raise VmferryError("not_found", f"The work folder of the attempt {job.attempt} is gone.")
        if record.alive is not False:
            raise VmferryError("not_found", f"The work folder of the attempt {job.attempt} is another's.")
        folder._change(job_id=job.job_id, owner=current_owner(), started_at=time.time())
        return folder

    def make_room_for_qemu(self, user: tuple[int, int] | None) -> Path:
        room = self.path / "qemu"
        try:
            room.mkdir(mode=0o700)
            if user is not None and user != (os.geteuid(), os.getegid()):
                os.chown(room, *user)
        except PermissionError as error:
            raise VmferryError(
                "permission_denied",
                f"QEMU runs as user {user[0] if user else '?'}, to whom {room} cannot be given.",
                "Run the task as root (become: true).",
            ) from error
        except OSError as error:
            raise _cannot_use(str(self.path.parent), error) from error
        return room

    def will_make(self, **what: str) -> None:
        """Durable when it returns; only then may the effect happen."""
        self._change(made=(*self.record.made, what))

    def has_undone(self, **what: str) -> None:
        """It was written down by `will_make`, and nobody has to see to it any more."""
        self._change(made=tuple(one for one in self.record.made if one != what))

    def has_made(self, **what: str) -> None:
        """In the place of all that was written down before: from now on it belongs to somebody, and stays."""
        self._change(made=(what,))

    def release(self) -> None:
        """To whoever comes next. Without room to say so, that is so as soon as this process is gone."""
        with suppress(VmferryError):
            self._change(owner=RELEASED)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=False, onerror=_already_gone)

    def _change(self, **fields: Any) -> None:
        """Raises `no_space`, `permission_denied` or `not_found`, and is what it was then."""
        record = replace(self.record, **fields)
        try:
            self._write(record)
        except OSError as error:
            raise _cannot_use(str(self.path.parent), error) from error
        self.record = record

    def _write(self, record: Record) -> None:
        fresh = self.path / f"{OWNER}.new"
        with fresh.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump({**vars(record), "made": list(record.made)}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / OWNER)


def _path(scratch_dir: str, job: Job) -> Path:
    return Path(scratch_dir) / f"vmferry-{job.attempt}"


def read_folder(path: Path) -> WorkFolder | None:
    """None for anything that is not a folder of ours: in a folder that all may write, only the owner is proof."""
    try:
        seen = path.lstat()
        if not NAME.fullmatch(path.name) or not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
            return None
        said = json.loads((path / OWNER).read_text(encoding="utf-8"))
        record = Record(**{**said, "made": tuple(said["made"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return WorkFolder(path, record)


def work_folders(scratch_dir: str) -> Iterator[WorkFolder]:
    for path in sorted(Path(scratch_dir).glob("vmferry-*")):
        folder = read_folder(path)
        if folder is not None:
            yield folder


def free_bytes(path: str) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _already_gone(_function: object, _path: str, failure: Any) -> None:
    if not isinstance(failure[1], FileNotFoundError):
        raise failure[1]


def _cannot_use(scratch_dir: str, error: OSError) -> VmferryError:
    kinds = {FileNotFoundError: "not_found", PermissionError: "permission_denied", FileExistsError: "conflict"}
    kind: Any = kinds.get(type(error), "no_space" if error.errno == 28 else "internal")
    return VmferryError(kind, f"The scratch folder {scratch_dir} cannot be used: {error.strerror}.", "Set scratch_dir.")
