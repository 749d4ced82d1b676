# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which blocks of an EBS snapshot hold data, or differ from an older one of the same volume, as EBS direct lists them.

https://docs.aws.amazon.com/ebs/latest/APIReference/API_ListSnapshotBlocks.html and API_ListChangedBlocks.html. A list
comes in pages, in the order of the disk; a page may be empty and still name a next one. The name of the next page is
good for an hour and the token of a block, without which it cannot be read, for seven days: what is over is asked for
again.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from threading import Lock
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..._errors import VmferryError
from .errors import reason_of
from .request_rate import RequestRates
from .session import Session

BLOCK = 512 * 1024  # bytes
GIB = 1 << 30
PAGE = 10_000  # blocks, the most that AWS gives at once
KEPT = 8  # pages whose tokens are remembered, at 1.2 MB each; the others are asked for again when they are read
EMPTY = 1_000  # empty pages one after the other, before it is taken for an error; and more of a large disk:
LOOKED_AT = 1_000  # blocks that AWS is taken to compare for a page at least, whether any of them is listed or not
GONE = ""  # in the place of the token of a block that the older snapshot has, and this one has not: it reads as zeros


class Page:
    """Of blocks [start, end) those that are listed, in order, with their tokens."""

    def __init__(self, start: int, end: int, indexes: array[int], tokens: List[str]) -> None:
        self.start, self.end, self.indexes, self.tokens = start, end, indexes, tokens

    def position(self, index: int) -> int:
        """Where it is, or would be."""
        return bisect_left(self.indexes, index)

    def token(self, index: int) -> Optional[str]:
        """None of one that is not listed."""
        at = self.position(index)
        return self.tokens[at] if at < len(self.indexes) and self.indexes[at] == index else None


class KeptPages:
    """The last ones that were needed, of any list of an export: its disks are read one after the other. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pages: OrderedDict[Tuple[object, int], Page] = OrderedDict()  # by their list and their start

    def find(self, blocks: object, index: int) -> Optional[Page]:
        with self._lock:
            for key in self._of(blocks, index):
                self._pages.move_to_end(key)
                return self._pages[key]
        return None

    def keep(self, blocks: object, page: Page) -> None:
        with self._lock:
            self._pages[blocks, page.start] = page
            while len(self._pages) > KEPT:
                self._pages.popitem(last=False)

    def drop(self, blocks: object, index: int) -> None:
        with self._lock:
            for key in self._of(blocks, index):
                del self._pages[key]

    def _of(self, blocks: object, index: int) -> List[Tuple[object, int]]:
        return [key for key, page in self._pages.items() if key[0] is blocks and page.start <= index < page.end]


class SnapshotBlocks:
    """Of a snapshot, all; or with `older`, one of the same volume, those that differ. Thread-safe."""

    def __init__(
        self,
        session: Session,
        rates: RequestRates,
        snapshot: str,
        size: int,
        label: str,
        older: str = "",
        kept: Optional[KeptPages] = None,
    ) -> None:
        """`size`: of the disk, in bytes; `label`: "/dev/sda1 of web01"; `kept`: shared with other lists."""
        self._session, self._rates, self._label = session, rates, label
        self.snapshot, self.older, self.size = snapshot, older, size
        self._count = size // BLOCK
        self._asking = Lock()
        self._kept = kept or KeptPages()

    def pages(self) -> Iterator[Page]:
        """All of the disk, each page when it is asked for."""
        at = 0
        while at < self._count:
            page = self.page_at(at)
            yield page
            at = page.end

    def page_at(self, index: int) -> Page:
        """One that tells of this block, and of more behind it."""
        page = self.known(index)
        if page is not None:
            return page
        with self._asking:
            page = self.known(index)  # by now
            if page is None:
                page = self._listed(index)
                self._kept.keep(self, page)
            return page

    def known(self, index: int) -> Optional[Page]:
        """As `page_at`, where that asks nobody."""
        return self._kept.find(self, index)

    def forget(self, index: int) -> None:
        """The token of this block is not good any more, nor are those that came with it."""
        self._kept.drop(self, index)

    def _listed(self, start: int) -> Page:
        next_page, most = "", EMPTY + self._count // LOOKED_AT
        for _empty in range(most):
            try:
                answer = self._asked(start, next_page)
            except VmferryError as error:
                if not next_page or reason_of(error) != "INVALID_PAGE_TOKEN":
                    raise
                next_page = ""
                continue
            page = self._page(start, answer)
            next_page = answer.get("NextToken") or ""
            if page.tokens or not next_page:
                return page
        raise self._untrue(f"{most} pages of the list are empty")

    def _asked(self, start: int, next_page: str) -> Dict[str, Any]:
        asked: Dict[str, Any] = {"MaxResults": PAGE}
        if next_page:
            asked["NextToken"] = next_page
        else:
            asked["StartingBlockIndex"] = start
        ebs = self._session.client("ebs")
        if self.older:
            self._rates.take("ListChangedBlocks")
            with self._session.doing(f"Listing what changed on {self._label}"):
                changed: Dict[str, Any] = ebs.list_changed_blocks(
                    FirstSnapshotId=self.older, SecondSnapshotId=self.snapshot, **asked
                )
            return changed
        self._rates.take("ListSnapshotBlocks")
        with self._session.doing(f"Listing the blocks of {self._label}"):
            found: Dict[str, Any] = ebs.list_snapshot_blocks(SnapshotId=self.snapshot, **asked)
        return found

    def _page(self, start: int, answer: Dict[str, Any]) -> Page:
        self._check(answer)
        indexes, tokens = array("L"), []
        at = start
        for block in answer.get("ChangedBlocks" if self.older else "Blocks") or ():
            index = int(block["BlockIndex"])
            if not at <= index < self._count:
                raise self._untrue(f"block {index} is listed where {at} to {self._count - 1} are to come")
            indexes.append(index)
            tokens.append(block.get("SecondBlockToken" if self.older else "BlockToken") or GONE)
            at = index + 1
        if not self.older and GONE in tokens:
            raise self._untrue("a block is listed without a token")
        return Page(start, at if answer.get("NextToken") else self._count, indexes, tokens)

    def _check(self, answer: Dict[str, Any]) -> None:
        if answer.get("BlockSize", BLOCK) != BLOCK:
            raise self._untrue(f"its blocks have {answer['BlockSize']} bytes, and not {BLOCK}")
        if answer.get("VolumeSize", self.size // GIB) * GIB != self.size:
            raise self._untrue(f"it has {answer['VolumeSize']} GiB, and not {self.size // GIB}")

    def _untrue(self, why: str) -> VmferryError:
        text = f"What AWS says of the snapshot {self.snapshot} of {self._label} cannot be right: {why}."
        return VmferryError("conflict", text, "Export again. If it happens again, tell AWS.", retryable=True)
