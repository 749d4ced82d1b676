# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data that is proved, leaf by leaf, against the digest file of its export, before it is used."""

from __future__ import annotations

from threading import Lock
from typing import Callable, Dict, Iterator, Optional, Protocol, Tuple

from .._blocks import LEAF
from .._errors import VmferryError
from .digest_file import CHUNK_LEAVES
from .digests import Digests, DigestTree, LeafHash, plain_hash


class LeafCheck(Protocol):
    """What the leaves of a disk have to be. `DigestCheck` knows; `LeafRecord` learns it."""

    @property
    def size(self) -> int: ...

    @property
    def leaf_hash(self) -> LeafHash: ...

    @property
    def tells_all(self) -> bool:
        """Whether it goes on behind what is damaged."""

    def expect(self, first: int, count: int) -> Digests:
        """One of each of so many leaves; `first` never lies before what was asked for earlier."""

    def expect_zeros(self, first: int, count: int) -> None: ...

    def compare(self, first: int, found: Digests, expected: Digests) -> None:
        """In any order, by any thread. Raises, or tells, where they differ."""

    def finish(self) -> str:
        """The root, in hex."""


class DigestCheck:
    """What is expected is asked for in guest order; what was found may be compared in any order, by any thread.

    The tree of what the file says is computed on the way, so a file that was changed along with the data does not
    pass: `finish` compares its root with the one in the manifest. Nothing may be called good before that.
    `records` come in chunk order, as `merged_leaves` gives them. `damaged` is told the number of each leaf that is not
    what was expected; without it, the first of them raises.
    """

    def __init__(
        self,
        size: int,
        records: Iterator[Tuple[int, Dict[int, bytes]]],
        root: str,
        disk: str,
        damaged: Optional[Callable[[int], object]] = None,
        leaf_hash: LeafHash = plain_hash,
    ) -> None:
        self.size, self.leaf_hash = size, leaf_hash
        self._records, self._root, self._disk, self._damaged = records, root, disk, damaged
        self._tree, self._lock = DigestTree(size), Lock()
        self._upcoming = next(records, None)
        self._chunk, self._leaves = -1, {}  # type: int, Dict[int, bytes]

    @property
    def tells_all(self) -> bool:
        """Whether it goes on behind what is damaged."""
        return self._damaged is not None

    def expect(self, first: int, count: int) -> list[bytes | None]:
        """The digests of so many leaves; `first` never lies before what was asked for earlier."""
        with self._lock:
            return [self._digest(index) for index in range(first, first + count)]

    def expect_zeros(self, first: int, count: int) -> None:
        """The file must have nothing but zeros there. Costs nothing for terabytes of them."""
        end = first + count
        with self._lock:
            chunk = first // CHUNK_LEAVES
            while chunk * CHUNK_LEAVES < end:
                self._go_to(chunk)
                for position, digest in self._leaves.items():
                    index = chunk * CHUNK_LEAVES + position
                    if digest and first <= index < end:
                        self._differs(index)
                following = self._upcoming[0] if self._upcoming else self._tree.chunk_count
                chunk = max(chunk + 1, following)

    def compare(self, first: int, found: Digests, expected: Digests) -> None:
        if list(found) == list(expected):
            return
        for index, (one, other) in enumerate(zip(found, expected), first):
            if one != other:
                self._differs(index)
        if len(found) != len(expected):
            self._differs(first + min(len(found), len(expected)))

    def finish(self) -> str:
        """The root, in hex; raises where it is not the one expected."""
        with self._lock:
            self._go_to(self._tree.chunk_count)
            root = self._tree.root()
        if root != self._root:
            raise VmferryError(
                "checksum_mismatch",
                f"The digest file of {self._disk} is not the one its manifest names: its root is {root}, "
                f"not {self._root}.",
                "The export was changed or damaged in its store; use another copy of it.",
            )
        return root

    def _digest(self, index: int) -> bytes | None:
        chunk, position = divmod(index, CHUNK_LEAVES)
        if chunk != self._chunk:
            self._go_to(chunk)
        return self._leaves.get(position) or None

    def _go_to(self, chunk: int) -> None:
        if chunk < self._chunk:
            raise VmferryError("internal", f"Digests of chunk {chunk} were asked for after those of {self._chunk}.")
        if chunk == self._chunk:
            return
        self._chunk, self._leaves = chunk, {}
        while self._upcoming and self._upcoming[0] <= chunk:
            number, leaves = self._upcoming
            self._tree.add(number, leaves)
            if number == chunk:
                self._leaves = leaves
            self._upcoming = next(self._records, None)

    def _differs(self, index: int) -> None:
        if self._damaged is not None:
            self._damaged(index)
            return
        start, end = index * LEAF, min((index + 1) * LEAF, self.size)
        raise VmferryError(
            "checksum_mismatch",
            f"{self._disk} is damaged: bytes {start} to {end} are not what was read when it was exported.",
            "The export was changed or damaged in its store; use another copy of it.",
        )
