# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of an appliance (`.mf`, DSP0243 5.1): a checksum of each file, and files that are compared with theirs
while they are read.
"""

from __future__ import annotations

import hashlib
import re
from hmac import compare_digest
from threading import Lock
from typing import Callable, Dict, Mapping, Optional, Sequence, Tuple

from .packages import Member, Package
from .refusals import damaged, quoted, refused

MAX_MANIFEST = 1024 * 1024  # bytes
KEPT_AHEAD = 8 * 1024 * 1024  # bytes that were read before those in front of them
_READ = 1024 * 1024
_LINE = re.compile(r"(SHA1|SHA256|SHA384|SHA512) ?\((.{1,200})\) ?= ?([0-9A-Fa-f]+)[ \t]*")
_UNLISTED = (".mf", ".cert")


def manifest_lines(sums: Sequence[Tuple[str, str]]) -> bytes:
    """`sums`: name and SHA-256 in hex of each file, in the order of the package."""
    return "".join(f"SHA256({name})= {digest}\n" for name, digest in sums).encode()


class Checksums:
    """What a manifest says of each file of its package; of nothing, where there is none."""

    def __init__(self, package: Package, manifest: Optional[Member]) -> None:
        """Raises `invalid_config` unless it names each file once, and no other; of an open package, `insist_on` has to
        be asked for each that is used."""
        self._where, self.is_there = package.where, manifest is not None
        self._sums: Mapping[str, Tuple[str, bytes]] = {}
        if manifest is None:
            return
        self._sums = _parsed(manifest.whole(MAX_MANIFEST, package.where), package.where)
        wanted = {name for name in package.members if not name.endswith(_UNLISTED)}
        for name in sorted(wanted if package.is_closed else ()):
            self.insist_on(name)
        for name in sorted(self._sums.keys() - wanted):
            raise refused(package.where, f"has a checksum of {quoted(name)}, but no such file")

    @classmethod
    def known(cls, package: Package, sums: Mapping[str, str]) -> Checksums:
        """`sums`: the SHA-256 in hex of files of the package, of as many of them as are known."""
        made = cls(package, None)
        made._sums = {name: ("sha256", bytes.fromhex(digest)) for name, digest in sums.items()}
        made.is_there = bool(sums)
        return made

    def insist_on(self, name: str) -> None:
        """Raises `invalid_config` where there are checksums, and none of this file."""
        if self.is_there and name not in self._sums:
            raise refused(self._where, f"has no checksum of its file {quoted(name)} in its list (.mf)")

    def algorithm(self, name: str) -> str:
        """As in `hashlib`; empty where nothing is known of the file."""
        return self._sums[name][0] if name in self._sums else ""

    def told(self, name: str) -> str:
        """In hex; empty where nothing is known of the file."""
        return self._sums[name][1].hex() if name in self._sums else ""

    def check(self, name: str, data: bytes) -> None:
        """Of a whole file. Raises `checksum_mismatch`."""
        if name in self._sums:
            algorithm, expected = self._sums[name]
            if not compare_digest(hashlib.new(algorithm, data).digest(), expected):
                raise self.mismatch(name)

    def watching(self, member: Member) -> CheckedMember:
        return CheckedMember(member, self._sums.get(member.name), self)

    def mismatch(self, name: str) -> Exception:
        return damaged(self._where, f"has a file {quoted(name)} that is not what its checksum says")


class CheckedMember:
    """A file's `read_at`, for any number of threads, that sums up what passes by. `finish` tells whether it was right.

    Bytes that are read in about their order are read once. What nobody asked for, and what was read long before its
    turn, is read by `finish`.
    """

    def __init__(self, member: Member, expected: Optional[Tuple[str, bytes]], checksums: Checksums) -> None:
        self._member, self._checksums = member, checksums
        self._sum = hashlib.new(expected[0]) if expected is not None else None
        self._expected = expected[1] if expected is not None else b""
        self._lock = Lock()
        self._ahead: Dict[int, bytes] = {}  # by offset
        self._ahead_bytes = 0
        self._at = 0  # everything in front of it is in the sum

    def read_at(self, offset: int, buffer: memoryview) -> None:
        self._member.read_at(offset, buffer)
        if self._sum is None:
            return
        with self._lock:
            end = offset + len(buffer)
            if offset <= self._at < end:
                self._take(buffer[self._at - offset :])
                self._catch_up()
            elif self._at < offset and self._ahead_bytes + len(buffer) <= KEPT_AHEAD and offset not in self._ahead:
                self._ahead[offset] = bytes(buffer)
                self._ahead_bytes += len(buffer)

    def finish(self, alive: Callable[[], object] = lambda: None) -> None:
        """After the last read, and before anything is made of them. Raises `checksum_mismatch`."""
        if self._sum is None:
            return
        buffer = memoryview(bytearray(min(_READ, self._member.size)))
        while self._at < self._member.size:
            here = buffer[: min(len(buffer), self._member.size - self._at)]
            self.read_at(self._at, here)
            alive()
        if not compare_digest(self._sum.digest(), self._expected):
            raise self._checksums.mismatch(self._member.name)

    def _take(self, data: memoryview) -> None:
        if self._sum is not None:
            self._sum.update(data)
            self._at += len(data)

    def _catch_up(self) -> None:
        """With what was read ahead."""
        for offset in sorted(self._ahead):
            if offset > self._at:
                break
            data = self._ahead.pop(offset)
            self._ahead_bytes -= len(data)
            if offset + len(data) > self._at:
                self._take(memoryview(data)[self._at - offset :])


def _parsed(data: bytes, where: str) -> Dict[str, Tuple[str, bytes]]:
    found: Dict[str, Tuple[str, bytes]] = {}
    try:
        lines = data.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise refused(where, "has a list of checksums that is not UTF-8") from error
    for line in filter(None, lines):
        match = _LINE.fullmatch(line)
        if match is None:
            raise refused(where, f"has a list of checksums with the line {quoted(line)}")
        algorithm, name, digest = match[1].lower(), match[2], match[3]
        if len(digest) != 2 * hashlib.new(algorithm).digest_size:
            raise refused(where, f"has a checksum of {quoted(name)} that is not as long as one")
        if name in found:
            raise refused(where, f"has two checksums of its file {quoted(name)}")
        found[name] = (algorithm, bytes.fromhex(digest))
    return found
