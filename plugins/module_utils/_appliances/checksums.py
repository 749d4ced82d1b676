# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of an appliance (`.mf`, DSP0243 5.1): a checksum of each file, and files of which nothing is given
out that was not compared with theirs.
"""

from __future__ import annotations

import hashlib
import re
from hashlib import sha256
from hmac import compare_digest
from threading import Lock
from typing import Callable, Dict, Mapping, Optional, Sequence, Tuple

from .packages import Member, Package
from .refusals import damaged, ends_early, quoted, refused

MAX_MANIFEST = 1024 * 1024  # bytes
PIECE = 512 * 1024  # bytes that are compared at once; their digests take 64 MiB for a file of 1 TiB
_SLOTS = 16  # pieces that are kept of each file
_READ = 16 * PIECE
_DIGEST = sha256().digest_size
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
        self.where, self.is_there = package.where, manifest is not None
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
            raise refused(self.where, f"has no checksum of its file {quoted(name)} in its list (.mf)")

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
        return damaged(self.where, f"has a file {quoted(name)} that is not what its checksum says")


class CheckedMember:
    """A file's `read_at`, for any number of threads, that gives out nothing but what its checksum was seen to be of.

    A file with a checksum is read twice: `check` reads all of it in order, and keeps a digest of each piece that it
    sums up. What is asked for after that is read in whole pieces, and each is compared with its digest.
    """

    def __init__(self, member: Member, expected: Optional[Tuple[str, bytes]], checksums: Checksums) -> None:
        self._member, self._expected, self._checksums = member, expected, checksums
        self._checking = Lock()
        self._digests = bytearray()
        self._is_checked = False
        self._slots = [_Slot() for _unused in range(_SLOTS)]

    def check(self, alive: Callable[[], object] = lambda: None) -> None:
        """All of it, once, with a call of `alive` now and then. Raises `checksum_mismatch`."""
        with self._checking:
            if self._expected is None or self._is_checked:
                return
            algorithm, expected = self._expected
            whole, digests = hashlib.new(algorithm), bytearray()
            buffer = memoryview(bytearray(min(_READ, self._member.size)))
            for at in range(0, self._member.size, _READ):
                here = buffer[: min(_READ, self._member.size - at)]
                self._member.read_at(at, here)
                whole.update(here)
                for start in range(0, len(here), PIECE):
                    digests += sha256(here[start : start + PIECE]).digest()
                alive()
            if not compare_digest(whole.digest(), expected):
                raise self._checksums.mismatch(self._member.name)
            self._digests, self._is_checked = digests, True

    def read_at(self, offset: int, buffer: memoryview) -> None:
        """Raises `checksum_mismatch`; the buffer is good for nothing then."""
        if self._expected is None:
            self._member.read_at(offset, buffer)
            return
        self.check()
        size, end = self._member.size, offset + len(buffer)
        if offset < 0 or end > size:
            raise ends_early(self._checksums.where, self._member.name)
        stop = end if end == size else end - end % PIECE  # of whole pieces
        at = offset
        while at < end:
            number, start = divmod(at, PIECE)
            if start == 0 and at < stop:
                found = buffer[at - offset : stop - offset]
                self._read(number, found)
            else:
                found = buffer[at - offset : min((number + 1) * PIECE, end) - offset]
                found[:] = self._kept(number)[start : start + len(found)]
            at += len(found)

    def _kept(self, number: int) -> memoryview:
        """A piece of which only a part was asked for: its neighbours will ask for the rest."""
        slot = self._slots[number % _SLOTS]
        with slot.lock:
            if slot.number != number:
                data = bytearray(min(PIECE, self._member.size - number * PIECE))
                self._read(number, memoryview(data))
                slot.number, slot.data = number, bytes(data)
            return memoryview(slot.data)

    def _read(self, number: int, pieces: memoryview) -> None:
        """Whole ones, from this on."""
        self._member.read_at(number * PIECE, pieces)
        for start in range(0, len(pieces), PIECE):
            at = (number + start // PIECE) * _DIGEST
            found = sha256(pieces[start : start + PIECE]).digest()
            if not compare_digest(found, bytes(self._digests[at : at + _DIGEST])):
                raise self._checksums.mismatch(self._member.name)


class _Slot:
    """Holds one piece at a time."""

    def __init__(self) -> None:
        self.lock, self.number, self.data = Lock(), -1, b""


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
