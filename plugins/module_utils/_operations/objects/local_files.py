# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of this host are meant, and by which keys they go into a store."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from stat import S_ISREG
from typing import Callable, Iterator, Mapping, Sequence

from ..._errors import VmferryError
from ..._stores.keys import check_key
from .byte_sources import looking

FIELD = re.compile(r"\{(\w*)\}")
_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class FileToSend:
    path: Path
    key: str
    size: int


def files_to_send(
    src: Sequence[str], template: str, fields: Mapping[str, str], warn: Callable[[str], object]
) -> list[FileToSend]:
    """In order, each once. `fields`: what the template may name beside `{file}`. Raises `invalid_config` where two
    files would be one object, `not_found` for what does not exist; a glob or a folder may be of nothing."""
    found: dict[str, FileToSend] = {}
    for one in src:
        for path, name in _named(one, warn):
            key = filled(template, {**fields, "file": name})
            size = path.stat().st_size
            before = found.setdefault(key, FileToSend(path, key, size))
            if before.path != path:
                raise VmferryError(
                    "invalid_config",
                    f"{before.path} and {path} would both be the object {key}.",
                    "Have {file} in key, and send folders with files of the same names one by one.",
                )
    return list(found.values())


def fields_of(vm: str, now: datetime) -> dict[str, str]:
    if "/" in vm:
        raise VmferryError("invalid_config", f"vm is {vm!r}, which is no name: it has a '/'.")
    named = {"vm": vm} if vm else {}
    return {**named, "date": now.strftime("%Y%m%d"), "time": now.strftime("%H%M%S")}


def filled(template: str, fields: Mapping[str, str]) -> str:
    """The key that a template stands for, which never leaves its store."""
    if template.endswith("/"):
        template += "{file}"
    unknown = [field for field in FIELD.findall(template) if field not in fields]
    if unknown:
        hint = "Set vm." if unknown[0] == "vm" else "Known are {file}, {date}, {time}, and with vm, {vm}."
        raise VmferryError("invalid_config", f"key has {{{unknown[0]}}}, for which there is no value.", hint)
    return check_key(FIELD.sub(lambda match: fields[match[1]], template))


def _named(src: str, warn: Callable[[str], object]) -> Iterator[tuple[Path, str]]:
    """Files, each by the name that it has below the folder that was named."""
    path = Path(src)
    if not path.is_absolute():
        raise VmferryError("invalid_config", f"src has {src!r}; it must be an absolute path.")
    if path.is_dir():
        yield from _below(path, warn)
    elif path.exists():
        yield path, path.name
    elif _MAGIC.search(src):
        yield from _matching(src)
    else:
        raise VmferryError("not_found", f"{src} does not exist.", "Correct src. It is a path of the module's host.")


def _below(folder: Path, warn: Callable[[str], object]) -> Iterator[tuple[Path, str]]:
    def fail(error: OSError) -> None:
        raise error

    with looking(f"Reading {folder}"):
        for above, folders, names in os.walk(folder, onerror=fail):
            folders.sort()
            for name in sorted(names):
                path = Path(above, name)
                if S_ISREG(path.lstat().st_mode):
                    yield path, str(path.relative_to(folder))
                else:
                    warn(f"{path} is no regular file, and is left out.")
            for name in folders:
                if Path(above, name).is_symlink():
                    warn(f"{Path(above, name)} is a link, and is left out.")


def _matching(pattern: str) -> Iterator[tuple[Path, str]]:
    base = Path(pattern[: _first_magic(pattern)].rpartition("/")[0] or "/")
    found = [Path(one) for one in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  # Path.glob takes no absolute one
    files = [path for path in found if path.is_file()]
    for path in files:
        yield path, str(path.relative_to(base))


def _first_magic(pattern: str) -> int:
    match = _MAGIC.search(pattern)
    return match.start() if match else len(pattern)
