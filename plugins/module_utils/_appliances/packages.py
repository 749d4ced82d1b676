# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an appliance is made of: files by name, in a tar archive (OVA) or side by side. None is ever unpacked."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Callable, Collection, Dict, Iterable, Iterator, Mapping, Tuple

from .refusals import ends_early, quoted, refused
from .tar_headers import BLOCK, Header, padding, pax_records, unpack, with_records

ReadAt = Callable[[int, memoryview], None]  # fills the buffer with the file's bytes from an offset on, or raises
MAX_MEMBERS = 1024
MAX_EXTENDED = 64 * 1024  # bytes of an extended header or of a long name
_PLAIN = re.compile(r"[^\x00-\x1f\x7f-\x9f/\\:]{1,200}")
_KINDS: Mapping[str, str] = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a character device",
    "4": "a block device",
    "5": "a folder",
    "6": "a pipe",
    "K": "a link with a long name",
    "S": "a sparse file",
    "M": "a file in several volumes",
    "V": "a volume's name",
    "g": "an extended header for all members",
}


@dataclass(frozen=True)
class Member:
    """`read_at` knows only this file's bytes."""

    name: str
    size: int
    read_at: ReadAt

    def whole(self, limit: int, where: str) -> bytes:
        """Raises `invalid_config` where there is more of it than `limit` bytes."""
        if self.size > limit:
            raise refused(where, f"has a file {quoted(self.name)} of {self.size} bytes; at most {limit} are read of it")
        data = bytearray(self.size)
        if data:
            self.read_at(0, memoryview(data))
        return bytes(data)


@dataclass(frozen=True)
class Package:
    """`where`: what messages call it. `is_closed`: nothing lies in it that does not belong to it."""

    where: str
    members: Mapping[str, Member]  # by name, in their order
    is_closed: bool = True

    def only(self, names: Collection[str]) -> Package:
        """Without what lies beside an open one, and is no business of its own."""
        kept = {name: member for name, member in self.members.items() if self.is_closed or name in names}
        return Package(self.where, kept, self.is_closed)

    @classmethod
    def of(cls, where: str, members: Iterable[Member], *, is_closed: bool = True) -> Package:
        """Raises `invalid_config` for names that are none, or that a file system takes for one."""
        found: Dict[str, Member] = {}
        seen = set()
        for member in members:
            if len(found) == MAX_MEMBERS:
                raise refused(where, f"has more than {MAX_MEMBERS} files")
            check_name(member.name, where)
            folded = unicodedata.normalize("NFC", member.name).casefold()
            if folded in seen:
                raise refused(where, f"has the file {quoted(member.name)} twice")
            seen.add(folded)
            found[member.name] = member
        return cls(where, found, is_closed)


def check_name(name: str, where: str) -> None:
    """Of a file without a folder, that means the same everywhere."""
    if name.startswith(("/", "\\")) or name[1:2] == ":":
        raise refused(where, f"has a file with the absolute name {quoted(name)}")
    if ".." in re.split(r"[/\\]", name):
        raise refused(where, f"has a file with the name {quoted(name)}, which leaves its folder")
    if not _PLAIN.fullmatch(name) or name in (".", ".."):
        raise refused(where, f"has a file with the name {quoted(name)}: files of an appliance lie in no folder")


def ova_package(read_at: ReadAt, size: int, where: str) -> Package:
    """The members of a tar archive of `size` bytes, found by ranged reads of their headers. Raises `invalid_config`."""
    return Package.of(where, _tar_members(read_at, size, where))


def _tar_members(read_at: ReadAt, size: int, where: str) -> Iterator[Member]:
    records: Dict[str, str] = {}
    at = extended = 0
    while True:
        header = unpack(_read(read_at, at, BLOCK, size, where), where)
        if header is None:
            break
        start = at + BLOCK
        if header.kind in "xL":
            extended += 1
            if extended > 2:
                raise refused(where, "has extended headers without a member")
            _merge(records, header, _extended(read_at, start, header, size, where), where)
            at = start + header.size + padding(header.size)
            continue
        header, records, extended = with_records(header, records, where), {}, 0
        if header.kind not in ("0", "\0"):
            what = _KINDS.get(header.kind, f"of the kind {quoted(header.kind)}")
            raise refused(where, f"has a member {quoted(header.name)} that is {what}")
        if header.size > size - start:
            raise refused(where, f"ends within its member {quoted(header.name)}")
        yield Member(header.name[2:] if header.name.startswith("./") else header.name, header.size,
                     _within(read_at, start, header.size, header.name, where))  # fmt: skip
        at = start + header.size + padding(header.size)
    if records:
        raise refused(where, "has extended headers without a member")


def _extended(read_at: ReadAt, start: int, header: Header, size: int, where: str) -> Dict[str, str]:
    if header.size > MAX_EXTENDED:
        raise refused(where, f"has an extended header of {header.size} bytes")
    data = _read(read_at, start, header.size, size, where)
    if header.kind == "x":
        return pax_records(data, where)
    try:
        return {"path": data.rstrip(b"\0").decode("utf-8")}
    except UnicodeDecodeError as error:
        raise refused(where, "has a name that is not UTF-8") from error


def _merge(records: Dict[str, str], header: Header, found: Dict[str, str], where: str) -> None:
    if records.keys() & found.keys():
        raise refused(where, "has two extended headers for one member")
    records.update(found)


def _read(read_at: ReadAt, at: int, count: int, size: int, where: str) -> bytes:
    if count > size - at:
        raise refused(where, "ends before its end is marked: it is not whole")
    data = bytearray(count)
    if data:
        read_at(at, memoryview(data))
    return bytes(data)


def _within(read_at: ReadAt, start: int, size: int, name: str, where: str) -> ReadAt:
    def read(offset: int, buffer: memoryview) -> None:
        if offset < 0 or offset + len(buffer) > size:
            raise ends_early(where, name)
        read_at(start + offset, buffer)

    return read


def folder_package(
    where: str, files: Iterable[Tuple[str, int]], read: Callable[[str, int, memoryview], object]
) -> Package:
    """The files beside a descriptor, by name and size; others may be among them. `read(name, offset, buffer)`."""
    return Package.of(where, (_file(name, size, read, where) for name, size in files), is_closed=False)


def _file(name: str, size: int, read: Callable[[str, int, memoryview], object], where: str) -> Member:
    def read_at(offset: int, buffer: memoryview) -> None:
        read(name, offset, buffer)

    return Member(name, size, _within(read_at, 0, size, name, where))
