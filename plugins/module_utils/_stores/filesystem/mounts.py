# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On which mount a folder lies: https://docs.kernel.org/filesystems/proc.html, "/proc/<pid>/mountinfo"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional

NFS = frozenset({"nfs", "nfs4", "fuse.nfs", "fuse.nfs4", "fuse.fuse-nfs"})  # the last is libnfs's own bridge
_NETWORK = NFS | {
    *("cifs", "smb3", "9p", "ceph", "fuse.ceph", "glusterfs", "fuse.glusterfs", "lustre", "afs"),
    *("fuse.sshfs", "fuse.s3fs", "fuse.rclone", "virtiofs", "beegfs", "gpfs"),
}
_LOCKS_FOR_ALL = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.ceph", "glusterfs", "fuse.glusterfs", "lustre", "afs"}
)
# Of FUSE, nobody can tell by its type alone what is behind it. Of these it is a file system of this host.
_FUSE_OF_THIS_HOST = frozenset(
    {
        "fuse.bindfs",
        "fuse.encfs",
        "fuse.exfat",
        "fuse.fuse-overlayfs",
        "fuse.gocryptfs",
        "fuse.mergerfs",
        "fuse.ntfs-3g",
    }
)
_LOCAL_LOCKS = frozenset({"nolock", "local_lock=all", "local_lock=flock", "localflock", "nobrl"})
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    point: str
    fstype: str
    source: str  # "server:/export", "/dev/vdb1"
    root: str  # the folder of that file system which is mounted here
    options: frozenset[str] = frozenset()

    @property
    def is_nfs(self) -> bool:
        return self.fstype in NFS

    @property
    def over_network(self) -> bool:
        return self.fstype in _NETWORK

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may have it, too."""
        of_fuse = self.fstype == "fuse" or self.fstype.startswith("fuse.")
        return self.over_network or (of_fuse and self.fstype not in _FUSE_OF_THIS_HOST)

    @property
    def locks_reach_other_hosts(self) -> bool:
        """Where that is known: a bridge of FUSE may keep the locks of this host to itself."""
        return self.fstype in _LOCKS_FOR_ALL and not self.options & _LOCAL_LOCKS

    def is_the_same_as(self, other: Mount) -> bool:
        """Mounted again is the same: a device number may be a new one then."""
        return (self.point, self.fstype, self.source, self.root) == (
            other.point,
            other.fstype,
            other.source,
            other.root,
        )


def mount_of(descriptor: int) -> Optional[Mount]:
    """None where the system does not tell: it has no /proc, or not Linux's. By descriptor, so that no link, no second
    mount on the same point and no change meanwhile can lead astray."""
    try:
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
        number = next((line.split()[1] for line in told.splitlines() if line.startswith("mnt_id:")), "")
        with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
            return next(_numbered(lines, number), None)
    except OSError:
        return None


def _numbered(lines: Iterator[str], number: str) -> Iterator[Mount]:
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields, described = before.split(), after.split()
        if separator and fields[0] == number and len(described) >= 2:
            options = frozenset([*fields[5].split(","), *(described[2] if len(described) > 2 else "").split(",")])
            yield Mount(_plain(fields[4]), described[0], _plain(described[1]), _plain(fields[3]), options)


def _plain(field: str) -> str:
    """Blanks, tabs, newlines and backslashes are told as octal numbers."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), field)
