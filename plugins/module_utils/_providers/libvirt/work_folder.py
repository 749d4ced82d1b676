# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of one export on the KVM host: QEMU's scratch files and its NBD socket, and whose they are.

QEMU itself makes the socket, so the folder belongs to the user that QEMU runs as, and to nobody else: whoever may open
the socket reads the disk.
"""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Mapping, Optional

from ..._errors import VmferryError
from ..base import Job

PREFIX = "vmferry-"
OWNER = "owner.json"
DEFAULT_PARENT = "/var/tmp"  # disk, not memory, and kept over a reboot; the name in it is not guessable


class WorkFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, parent: str, job: Job, owner: Mapping[str, Any], account: tuple[int, int]) -> WorkFolder:
        folder = cls(Path(parent) / f"{PREFIX}{job.attempt}-{job.job_id[:12]}")
        try:
            folder.path.mkdir(mode=0o700)
            (folder.path / OWNER).write_text(json.dumps({**owner, "job": job.job_id}))
            os.chown(folder.path, *account)
        except OSError as error:
            folder.remove()
            raise VmferryError(
                "permission_denied",
                f"The folder {folder.path} for QEMU's scratch files cannot be made: {error.strerror}.",
                "Set scratch_dir to a folder that this user may write and QEMU may enter.",
            ) from error
        return folder

    @property
    def socket(self) -> Path:
        return self.path / "nbd.sock"

    def scratch(self, disk: str) -> Path:
        return self.path / f"{disk}.scratch"

    def owner(self) -> Optional[dict[str, Any]]:
        try:
            found: dict[str, Any] = json.loads((self.path / OWNER).read_text())
        except (OSError, ValueError):
            return None
        return found

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def folder_of(backup_xml: str) -> Optional[WorkFolder]:
    """The folder of the job that this backup belongs to, or None for somebody else's backup."""
    server = ET.fromstring(backup_xml).find("server")  # libvirt's own output
    socket = Path(server.get("socket", "") if server is not None else "")
    return WorkFolder(socket.parent) if socket.parent.name.startswith(PREFIX) else None
