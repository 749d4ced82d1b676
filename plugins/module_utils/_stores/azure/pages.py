# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A page blob, which is what Azure makes a managed disk of: pages in any order, and no page where there are zeros.

Pages are seen as soon as they are written, so they are written under a name that no key can have. Azure then copies
the whole to its own name, within the account. https://learn.microsoft.com/rest/api/storageservices/put-page
"""

from __future__ import annotations

import secrets
from threading import Lock
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from ..._blocks import ObjectInfo, Part, PartReceipt
from ..._errors import VmferryError
from ..keys import UPLOAD
from ..memory_body import MemoryBody
from ..metadata import UPLOAD_TOKEN
from .answers import RangeAnswer
from .checksums import Checksum
from .container import Container, absent, decode_metadata, encode_metadata, is_pages, is_whole, unchanged
from .page_copy import copy_pages, give_up
from .page_ranges import PAGE, filled_within, page_ranges, runs

MOST = 8 * 1024**4  # bytes; of a page blob
_AT_ONCE = 4 * 1024**2  # bytes; of Put Page


class PageBody(MemoryBody):
    """Which the SDK asks for its first bytes, that are all of it."""

    def __getitem__(self, wanted: slice) -> PageBody:
        return self


class AzurePages:
    any_offset = False

    def __init__(
        self, container: Container, key: str, checksum: Checksum, metadata: Mapping[str, str] | None, mark: str
    ) -> None:
        encode_metadata(metadata)  # what Azure would refuse in the end, it refuses now
        self._container, self._key, self._checksum, self._mark = container, key, checksum, mark
        self._metadata = {} if metadata is None else metadata  # which may be added to until the end
        self._url = f"{container.url}/{key}"
        self._hidden = f"{key}.{mark}.part"
        self._blob = container.blob(self._hidden)
        self._growing, self._length = Lock(), 0
        self._written: Set[int] = set()  # parts that may have left pages
        self._filled: Optional[List[Tuple[int, int]]] = None  # by an earlier process
        self._completing = self._was_there = False
        self._done: ObjectInfo | None = None

    @classmethod
    def create(
        cls, container: Container, key: str, checksum: Checksum, metadata: Mapping[str, str] | None
    ) -> AzurePages:
        pages = cls(container, key, checksum, metadata, secrets.token_hex(8))
        there = container.properties(key)
        if there is not None and not is_pages(there):
            raise VmferryError(
                "conflict",
                f"{pages._url} is no page blob, and Azure does not make one of it.",
                "Delete it, choose another storage URL, or set blob_type: block.",
            )
        with container.doing("Writing", key):
            pages._blob.create_page_blob(0)
        return pages

    @classmethod
    def resume(
        cls,
        container: Container,
        key: str,
        checksum: Checksum,
        metadata: Mapping[str, str] | None,
        token: str,
        known: int,
    ) -> AzurePages | None:
        """None also where it was completed and has more than the `known` bytes."""
        if not UPLOAD.fullmatch(token):
            return None
        pages = cls(container, key, checksum, metadata, token)
        return pages if pages._find(known) else None

    @property
    def token(self) -> str:
        return self._mark

    def _find(self, known: int) -> bool:
        found = self._container.properties(self._hidden)
        if found is not None:
            self._length = int(found.size)
            self._filled = list(page_ranges(self._container, self._hidden, self._length))
            return True
        self._done = self._if_ours()
        self._was_there = self._done is not None
        return self._done is not None and self._done.size <= known

    def confirms(self, receipt: PartReceipt) -> bool:
        """By how many bytes lie there: what was written was compared when it came, and nobody else writes there."""
        if self._done is not None:
            return receipt.part.offset + receipt.part.size <= self._done.size
        mark, _colon, count = receipt.etag.partition(":")
        if mark != self._mark or not count.isdigit():
            return False
        return filled_within(self._filled or [], receipt.part) == int(count)

    def write_at(self, offset: int, data: memoryview) -> None:
        raise VmferryError("internal", f"{self._url} takes numbered parts, not bytes at an offset.")

    def write_part(self, part: Part, data: memoryview) -> str:
        if self._done is not None:
            raise VmferryError("conflict", f"{self._url} is complete: no part can be added.")
        if part.offset % PAGE or part.size % PAGE:
            raise odd_size(self._url)
        self._grow(part.offset + part.size)
        again = part.number in self._written or self._filled is not None
        self._written.add(part.number)
        filled = runs(data, _AT_ONCE)
        for start, end in filled:
            self._send(part, start, data[start:end])
        if again:
            self._clear(part, filled)
        return f"{self._mark}:{sum(end - start for start, end in filled)}"

    def _grow(self, end: int) -> None:
        """In steps that double: how long it will be, is known in the end only. Room without pages costs nothing."""
        with self._growing:
            if end <= self._length:
                return
            if end > MOST:
                raise VmferryError(
                    "quota", f"{self._url} would be larger than a page blob can be.", "Send it as blocks."
                )
            length = min(max(end, 2 * self._length), MOST)
            with self._container.doing("Growing", self._hidden):
                self._blob.resize_blob(length)
            self._length = length

    def _send(self, part: Part, start: int, data: memoryview) -> None:
        digest = self._checksum.of(data)
        with self._container.doing(f"Writing part {part.number} of", self._key, checked=True):
            answer = self._blob.upload_page(
                PageBody(data, self._container.alive),
                part.offset + start,
                len(data),
                headers=self._checksum.headers(digest),
            )

        told = bytes(answer.get(f"content_{self._checksum.name}") or b"")  # of what the server received
        if told != digest and not self._is_there(part.offset + start, data):
            raise VmferryError(
                "checksum_mismatch",
                f"Part {part.number} of {self._url} is not what was sent.",
                "Check the network path.",
                retryable=True,
            )

    def _is_there(self, offset: int, data: memoryview) -> bool:
        """Asked of a server that does not say by a checksum what it took, such as an emulator."""
        found = bytearray(len(data))
        answer = RangeAnswer(self._url, offset, memoryview(found), self._container.alive)
        with self._container.doing("Reading", self._hidden):
            self._blob.download_blob(offset, len(data), answer=answer)
        return found == data

    def _clear(self, part: Part, filled: Sequence[Tuple[int, int]]) -> None:
        """What an earlier sending of this part may have left, where there are zeros now."""
        at = 0
        for start, end in (*filled, (part.size, part.size)):
            if start > at:
                with self._container.doing(f"Writing part {part.number} of", self._key):
                    self._blob.clear_page(part.offset + at, start - at)
            at = end

    def leave(self) -> None:
        """Nothing is held open."""

    def complete(self, receipts: Sequence[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        return self.finish(size, **(absent() if if_absent else {}))

    def finish(self, size: int, **condition: Any) -> ObjectInfo:
        """`condition`: of the SDK, on what is replaced. Called again after a failure it goes on where it failed."""
        if self._done is None:
            if size % PAGE:
                raise odd_size(self._url)
            info = self._if_ours() if self._completing else None
            if info is None:
                self._completing = True
                info = self._place(size, condition)
            self._container.remove(self._hidden)
            self._done = info
        return self._done

    def _place(self, size: int, condition: Dict[str, Any]) -> ObjectInfo:
        if size != self._length:
            with self._container.doing("Completing", self._hidden):
                self._blob.resize_blob(size)
            self._length = size
        here = self._container.properties(self._hidden)
        if here is None:
            raise VmferryError("conflict", f"The upload of {self._url} was removed meanwhile.", "Start it again.")
        copy_pages(self._container, self._hidden, here.etag, self._container, self._key, self._marked, condition)
        info = self._if_ours()
        if info is None or info.size != size:
            raise VmferryError("conflict", f"{self._url} was replaced or removed while it was written.")
        return info

    @property
    def _marked(self) -> Dict[str, str]:
        return self._container.marked(self._metadata, self._mark)

    def _if_ours(self) -> ObjectInfo | None:
        return self._container.if_marked(self._key, self._mark)

    def abort(self) -> None:
        """First what could still be copied, then what was; an object that another process had completed stays."""
        if self._done is not None:
            return
        self._container.remove(self._hidden)
        if not self._completing or self._was_there:
            return
        found = self._container.properties(self._key)
        if found is None or decode_metadata(found.metadata or {}).get(UPLOAD_TOKEN) != self._mark:
            return
        if not is_whole(found):
            give_up(self._container, self._key, found)
        self._container.remove(self._key, unchanged(found.etag) if is_whole(found) else {})


def odd_size(url: str) -> VmferryError:
    return VmferryError(
        "invalid_config",
        f"{url} cannot be a page blob: its size is not a multiple of {PAGE} bytes.",
        "A disk of Azure is a fixed VHD, whose size is one. Set blob_type: block for anything else.",
    )
