# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files below a store's URL are VMs: told by their names alone, nothing of them is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Collection, Dict, Iterable, Iterator, List, Sequence, Set, Tuple

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..._stores.base import Store
from ..._stores.keys import is_key
from .note_names import note_key, noted_name

APPLIANCES = (".ova", ".ova.gz", ".ovf")
IMAGES = (".qcow2", ".qcow", ".qed", ".img", ".raw", ".vmdk", ".vhd", ".vpc", ".vhdx", ".vdi")
_PACKED = ".ova.gz"
MOST_FILES = 20_000  # of a folder with more, nobody wants every VM told
MOST_DISKS = 256
WILD = re.compile(r"[*?]")
# What a VMDK's descriptor names, or VMware keeps beside it: no disk of its own.
_PART = re.compile(r".+-(flat|ctk|delta|sesparse|rdmp?|[sf][0-9]{3,})\.vmdk", re.IGNORECASE)
_NUMBER = re.compile(r"([0-9]+)")
_COUNTED = re.compile(r"([-_. ]*(disk)?[-_. ]*[0-9]*)?[-_. ]*$", re.IGNORECASE)


@dataclass(frozen=True)
class FileVm:
    """`path`: the key of an appliance or of an image; a folder, ending in a slash; or a pattern of keys.

    `name`: of an appliance only what its file is called. `images`: of its disks in order; none of an appliance.
    `problem`: why no VM can be made of what lies there.
    """

    path: str
    name: str
    images: Tuple[ObjectInfo, ...] = ()
    problem: VmferryError | None = None

    @property
    def is_appliance(self) -> bool:
        return not self.images and self.problem is None


def all_vms(store: Store) -> List[FileVm]:
    """Files of the store's root, and of the folders directly below. In a folder with an appliance, images are its own.
    A folder below that cannot be read is one with a problem.

    Raises `not_found` where the store's URL names no place.
    """
    _insist_on_place(store)
    by_folder: Dict[str, List[ObjectInfo]] = {}
    problems: Dict[str, VmferryError] = {}
    unfinished: Set[str] = set()
    for info in _at_most(store.list_readable("", problems.__setitem__), store.url):
        unfinished.add(noted_name(info.key))
        folder, slash, _name = info.key.rpartition("/")
        if "/" not in folder and _is_file_of_a_vm(info.key):
            by_folder.setdefault(folder + slash, []).append(info)
    closed = [folder for folder in problems if folder.count("/") == 1 and not folder.startswith(".")]
    closed += [folder for folder in by_folder if _is_unfinished(folder, by_folder[folder], unfinished)]
    vms = [vm for folder, files in sorted(by_folder.items()) if folder not in closed for vm in _vms_in(folder, files)]
    told = [folder for folder in sorted(closed) if folder in problems]
    return vms + [FileVm(folder, _folder_name(folder), problem=problems[folder]) for folder in told]


def vms_at(store: Store, path: str) -> List[FileVm]:
    """By a key, a folder or a pattern of keys; empty where nothing has such a name, or it is none at all.

    In a pattern, `*` and `?` stand for no slash, and everything else for itself; a file of just this name comes first.
    Raises `conflict` where a pattern fits appliances besides other files, `busy` for what an import is at.
    """
    _insist_on_place(store)
    if path.startswith("/") or "\\" in path or {"", ".", ".."} & set(path.rstrip("/").split("/")):
        return []
    _insist_on_finished(store, path.split("/")[0])
    found = _at_key(store, path.rstrip("/"))
    if found or not WILD.search(path):
        return found
    files = [info for info in _files(store, WILD.split(path)[0]) if _fits(info.key, path)]
    for folder in sorted({info.key.split("/")[0] for info in files if "/" in info.key}):
        _insist_on_finished(store, folder)
    if len(files) > 1 and any(_is_appliance(info.key) for info in files):
        raise VmferryError(
            "conflict",
            f"{store.object_url(path)} stands for {len(files)} files, among which are appliances.",
            "Write a pattern that fits one appliance, or the images of one VM.",
        )
    if not files:
        return []
    if _is_appliance(files[0].key):
        return [FileVm(files[0].key, _stem(files[0].key))]
    return [FileVm(path, _common_name(files), _in_order(files))]


def _is_unfinished(folder: str, files: Sequence[ObjectInfo], noted: Collection[str]) -> bool:
    """Whether an import is at it, or died over it: what it writes last, the descriptor, is not there yet."""
    name = folder.rstrip("/")
    return bool(name) and name in noted and f"{name}/{name}.ovf" not in {info.key for info in files}


def _insist_on_finished(store: Store, name: str) -> None:
    """Raises `busy`. Looks at the note first: it goes once the descriptor is there."""
    key = note_key(name)
    if not is_key(key) or store.stat(key) is None or store.stat(f"{name}/{name}.ovf") is not None:
        return
    if any(True for _info in store.list(f"{name}/")):
        raise VmferryError(
            "busy",
            f"{store.object_url(name)} is being written by an import, or by one that died.",
            "Wait until that is done. If it died, run it again, or end it with vmferry.migrate.job.",
        )


def _insist_on_place(store: Store) -> None:
    try:
        store.require_root()
    except VmferryError as error:
        if error.kind != "not_found":
            raise
        hint = "Give image.url the folder or the store that the files of the VMs lie in, and name one of them with vm."
        raise VmferryError("not_found", error.message, hint) from error


def _at_key(store: Store, key: str) -> List[FileVm]:
    if _is_appliance(key) or key.lower().endswith(IMAGES):
        info = store.stat(key)
        if info is not None:
            return [FileVm(key, _stem(key), () if _is_appliance(key) else (info,))]
    inside = [info for info in _files(store, f"{key}/") if "/" not in info.key[len(key) + 1 :]]
    vms = _vms_in(f"{key}/", [info for info in inside if _is_file_of_a_vm(info.key)])
    if len(vms) > 1:
        names = ", ".join(vm.path for vm in vms[:8])
        raise VmferryError("conflict", f"{store.object_url(key)} holds {len(vms)} VMs.", f"Name one of {names}.")
    return vms


def _files(store: Store, prefix: str) -> Iterator[ObjectInfo]:
    return _at_most(store.list(prefix), store.object_url(prefix))


def _at_most(files: Iterator[ObjectInfo], where: str) -> Iterator[ObjectInfo]:
    for count, info in enumerate(files):
        if count == MOST_FILES:
            raise VmferryError(
                "invalid_config",
                f"There are more than {MOST_FILES} files below {where}.",
                "Give image.url the folder that the files of the VMs lie in.",
            )
        yield info


def _vms_in(folder: str, files: Sequence[ObjectInfo]) -> List[FileVm]:
    found = [FileVm(info.key, _stem(info.key)) for info in files if _is_appliance(info.key)]
    images = [info for info in files if not _is_appliance(info.key)]
    if any(info.key.lower().endswith(".ovf") for info in files) or not images:
        return found
    if not folder:
        return found + [FileVm(info.key, _stem(info.key), (info,)) for info in images]
    try:
        return [*found, FileVm(folder, _folder_name(folder), _in_order(images))]
    except VmferryError as error:
        return [*found, FileVm(folder, _folder_name(folder), problem=error)]


def _is_file_of_a_vm(key: str) -> bool:
    name = key.rpartition("/")[2]
    return (
        not any(part.startswith(".") for part in key.split("/"))
        and name.lower().endswith((*APPLIANCES, *IMAGES))
        and not _PART.fullmatch(name)
    )


def _is_appliance(key: str) -> bool:
    return key.lower().endswith(APPLIANCES)


def _fits(key: str, pattern: str) -> bool:
    parts, patterns = key.split("/"), pattern.replace("[", "[[]").split("/")
    same_depth = len(parts) == len(patterns) and _is_file_of_a_vm(key)
    return same_depth and all(fnmatchcase(part, wanted) for part, wanted in zip(parts, patterns))


def _folder_name(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[2]


def _in_order(files: Iterable[ObjectInfo]) -> Tuple[ObjectInfo, ...]:
    """As people count: disk2 before disk10."""
    ordered = tuple(sorted(files, key=lambda info: (_natural(info.key), info.key)))
    if len(ordered) > MOST_DISKS:
        raise VmferryError(
            "unsupported",
            f"{len(ordered)} images beside {ordered[0].key} are more disks than any VM has.",
            "Put the images of each VM into a folder of its own, or name them by a pattern.",
        )
    return ordered


def _natural(key: str) -> List[Tuple[int, str]]:
    """Texts and numbers take turns, as `_NUMBER` splits them, so that like is compared with like."""
    parts = _NUMBER.split(key)
    return [(int(part), "") if place % 2 else (0, part.casefold()) for place, part in enumerate(parts)]


def _stem(key: str) -> str:
    name = key.rpartition("/")[2]
    return name[: -len(_PACKED)] if name.lower().endswith(_PACKED) else name.rpartition(".")[0]


def _common_name(files: Sequence[ObjectInfo]) -> str:
    """What the images' names begin with, without the counting; else their folder's name."""
    stems = [_stem(info.key) for info in files]
    first, last = min(stems), max(stems)
    length = next((at for at, one in enumerate(first) if last[at : at + 1] != one), len(first))
    name = first if len(files) == 1 else _COUNTED.sub("", first[:length])
    return name or files[0].key.rpartition("/")[0].rpartition("/")[2] or "images"
