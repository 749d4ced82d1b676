# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a VM's files lie, in words that mean them alone: each host has a /srv/images of its own."""

from __future__ import annotations

import os
import platform
import posixpath
import re
from pathlib import Path

from ..._stores.base import Store
from ..._stores.filesystem.mounts import Mount, mount_of

MACHINE_ID = Path("/etc/machine-id")  # machine-id(5)
_LOOK = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
# Whose source names the server. That of others is a name that each host gives (virtiofs, 9p), or the same for all.
_OF_A_SERVER = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.glusterfs", "lustre"})
_THIS_HOST = re.compile(r"(//)?(localhost|127\.|\[?::1\b)")


def place_of(store: Store, path: str, *, is_path: bool) -> str:
    """The same on each host that has these very files, and on no other. `path`: as a `FileVm` has it."""
    location = store.location(path)
    if not is_path:
        return f"{store.server} {location.rstrip('/')}".lstrip()
    folder, name = os.path.split(location)  # of a folder, which ends in a slash, the folder itself
    shared = _on_server(folder, name)
    return shared or f"{_this_host()}:{location.rstrip('/')}"


def _on_server(folder: str, name: str) -> str:
    """Empty where it is a file of this host, as far as can be told."""
    try:
        descriptor = os.open(folder, _LOOK)
    except OSError:
        return ""  # whoever reads it says why
    try:
        mount = mount_of(descriptor)
        if mount is None or not _names_server(mount):
            return ""
        below = os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), mount.point)
    finally:
        os.close(descriptor)
    return posixpath.normpath(f"{mount.source}/{mount.root}/{below}/{name}")


def _names_server(mount: Mount) -> bool:
    return mount.fstype in _OF_A_SERVER and not _THIS_HOST.match(mount.source)


def _this_host() -> str:
    try:
        told = MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        told = ""
    return told if re.fullmatch("[0-9a-f]{32}", told) else platform.node()
