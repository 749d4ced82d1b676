# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From URLs and settings to folders: where a store that is a folder begins, and what has to be mounted for it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Mapping, Optional
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ..._errors import VmferryError
from .roots import MountRule, Root


def absolute(url: str, path: str) -> Path:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise VmferryError(
            "invalid_config",
            f"The storage URL {url!r} is not an absolute path without '..'.",
            "Write file:///srv/exports.",
        )
    return Path(path)


def mount_point(settings: Mapping[str, Any]) -> Optional[Path]:
    told = settings.get("mount")
    if told is None:
        return None
    path = str(told)
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise VmferryError(
            "invalid_config",
            f"The storage option mount is {path!r}, which is not an absolute path without '..'.",
            "Name the folder that the file system is mounted at, for example /mnt/backup.",
        )
    return Path(path)


def require_below(url: str, folder: Path, point: Path) -> None:
    if point != folder and point not in folder.parents:
        raise VmferryError(
            "invalid_config",
            f"The storage URL {url} does not lie below the storage option mount, {point}.",
            "Correct one of the two, or leave mount out.",
        )


def path_root(url: str, settings: Mapping[str, Any]) -> Root:
    """Of a bare path, or of `file:///path`."""
    path = url
    if not url.startswith("/"):
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise VmferryError(
                "invalid_config",
                f"The storage URL {url} names a host; a path of this machine has three slashes.",
                f"Did you mean file:///{parts.netloc}{parts.path}?",
            )
        path = unquote(parts.path)
    folder = absolute(url, path)
    point = mount_point(settings)
    if point is not None:
        require_below(url, folder, point)
    return Root(folder, folder.as_uri(), MountRule(point))


def nfs_root(url: str, settings: Mapping[str, Any]) -> Root:
    """Of `nfs:///absolute/path` on an NFS mount, or of `nfs://relative/path` below the one at the setting `mount`."""
    parts, point = urlsplit(url), mount_point(settings)
    told = unquote(parts.netloc + parts.path)
    if parts.netloc:
        if point is None:
            raise _not_mounted(url, parts)
        if ".." in told.split("/"):
            raise VmferryError(
                "invalid_config", f"The storage URL {url!r} climbs by '..'.", "Write nfs://folder/below."
            )
        folder = absolute(url, f"{point}/{told}")
    else:
        folder = absolute(url, told)
        if point is not None:
            require_below(url, folder, point)
    return Root(folder, "nfs://" + quote(str(folder)), MountRule(point, nfs=True))


def _not_mounted(url: str, parts: SplitResult) -> VmferryError:
    export = unquote(parts.path).rstrip("/") or "/"
    port = f",port={parts.netloc.rpartition(':')[2]}" if parts.netloc.rpartition(":")[2].isdigit() else ""
    server = parts.netloc.rpartition(":")[0] if port else parts.netloc
    point = f"/mnt/{Path(export).name or 'exports'}"
    source, where = shlex.quote(f"{server}:{export}"), shlex.quote(point)
    return VmferryError(
        "invalid_config",
        f"The storage URL {url} names a server, or a folder below a mount point that is not given.",
        f"Mount the export (mount -t nfs -o vers=4.1,hard{port} {source} {where}) and write nfs://{quote(point)}; or "
        "name the mount point in the storage option mount, and the folder below it in the URL.",
    )
