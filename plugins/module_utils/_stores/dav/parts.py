# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object in parts, on a server that takes whole files only.

Each part is a file of its own in a hidden folder, so that what was sent once is never sent again by a later run. When
all are there, they are read back, compared with what was sent, and sent once more as one file, which is then moved to
its name in one step. An object of one part is that part, moved.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from hashlib import sha256
from typing import Any, Dict, Generator, Iterable, Iterator, Mapping, Optional, Sequence

from ..._blocks import ObjectInfo, Part, PartReceipt
from ..._errors import VmferryError
from ..numbered_parts import NumberedParts
from ..ranges import READ_CHUNK
from .ahead import ReadAhead
from .client import Body
from .folder import DavFolder
from .headers import CHECKSUM, encode_metadata
from .placement import Placement

_WHOLE = "whole"


class DavParts(NumberedParts):
    def __init__(self, folder: DavFolder, key: str, metadata: Mapping[str, str] | None, token: str) -> None:
        super().__init__(folder.url_of(key))
        self._folder, self._key, self.token = folder, key, token
        self._metadata = encode_metadata(metadata)
        self._hidden = f"{key}.{token}.part"
        self._whole = f"{self._hidden}/{_WHOLE}"
        self._sizes: Dict[str, int] = {}  # of the parts that were there when it was taken up again
        self._placement = Placement(folder, key)
        self._found: Optional[ObjectInfo] = None  # complete already when it was taken up again

    @classmethod
    def create(cls, folder: DavFolder, key: str, metadata: Mapping[str, str] | None) -> DavParts:
        parts = cls(folder, key, metadata, secrets.token_hex(8))
        folder.make_folder(parts._hidden)
        return parts

    @classmethod
    def resume(
        cls, folder: DavFolder, key: str, metadata: Mapping[str, str] | None, token: str, known: int
    ) -> DavParts | None:
        """None also where an object is there that has not the `known` bytes. One that has them is compared by
        `confirms`: nothing else tells whose it is.
        """
        parts = cls(folder, key, metadata, token)
        entries = folder.entries(parts._hidden)
        if entries is not None:
            parts._sizes = {name: each.size for name, each in entries}
            return parts
        parts._found = folder.head(key)
        return parts if parts._found is not None and parts._found.size == known else None

    def write_part(self, part: Part, data: memoryview) -> str:
        self._require_incomplete(self._found)
        digest = sha256(data).hexdigest()
        self._folder.put(
            f"{self._hidden}/{_name(part, digest)}",
            Body(data, self._folder.client.alive),
            {CHECKSUM: digest, **self._metadata},
        )
        return digest

    def confirms(self, receipt: PartReceipt) -> bool:
        """By its name, which holds its digest; its bytes are compared when the parts are joined."""
        if self._found is not None:
            return self._holds(receipt)
        return self._sizes.get(_name(receipt.part, receipt.etag)) == receipt.part.size

    def _holds(self, receipt: PartReceipt) -> bool:
        if not receipt.part.size:
            return True
        digest = sha256()
        headers = _range(receipt.part.offset, receipt.part.size)
        with self._folder.reading(self._key, headers) as answer:
            if answer.status != 206:
                return False
            while data := answer.read(READ_CHUNK):
                digest.update(data)
                self._folder.client.alive()
        return digest.hexdigest() == receipt.etag

    def _complete(self, receipts: Sequence[PartReceipt], size: int, if_absent: bool) -> ObjectInfo:
        if self._found is None:
            self._place(receipts, size, if_absent)
        return self._placement.placed(size)

    def _place(self, receipts: Sequence[PartReceipt], size: int, if_absent: bool) -> None:
        source = self._whole
        if len(receipts) == 1 and receipts[0].part.size == size:
            source = f"{self._hidden}/{_name(receipts[0].part, receipts[0].etag)}"
        elif not (self._placement.done or self._placement.unanswered):
            with ReadAhead(_Joined(self._folder, self._hidden, receipts).pieces()) as pieces:
                self._folder.send_once(self._whole, _Body(pieces, size), self._metadata)
        self._placement.move(source, size, if_absent=if_absent)
        self._folder.remove(self._hidden, is_folder=True)

    def abort(self) -> None:
        if self._done is not None or self._found is not None:
            return
        self._placement.undo()
        self._folder.remove(self._hidden, is_folder=True)
        self._folder.tidy(self._key)


class _Body:
    """Of a request, whose length is known and whose bytes come by and by."""

    def __init__(self, pieces: Iterable[bytes], size: int) -> None:
        self._pieces, self._size = pieces, size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


class _Joined:
    """The parts, one behind the other, as they come back from the server."""

    def __init__(self, folder: DavFolder, hidden: str, receipts: Sequence[PartReceipt]) -> None:
        self._folder, self._hidden, self._receipts = folder, hidden, receipts

    def pieces(self) -> Generator[bytes, None, None]:
        for receipt in self._receipts:
            yield from self._part(receipt)

    def _part(self, receipt: PartReceipt) -> Iterator[bytes]:
        key, digest = f"{self._hidden}/{_name(receipt.part, receipt.etag)}", sha256()
        length = 0
        with self._folder.reading(key) as answer:
            while data := self._read(answer):
                length += len(data)
                if length > receipt.part.size:
                    break
                digest.update(data)
                yield data
        if length != receipt.part.size or digest.hexdigest() != receipt.etag:
            with suppress(VmferryError):  # or a later run would find it again, and take it for what was sent
                self._folder.remove(key)
            raise VmferryError(
                "checksum_mismatch",
                f"Part {receipt.part.number} of {self._folder.url_of(self._hidden)} is not what was sent.",
                "Check the network path and the server's disk. Run it again: the part is then sent again.",
            )

    def _read(self, answer: Any) -> bytes:
        data: bytes = answer.read(READ_CHUNK)
        self._folder.client.alive()
        self._folder.moving(2 * len(data))
        return data


def _name(part: Part, digest: str) -> str:
    return f"{part.number:05d}-{digest[:40]}"


def _range(offset: int, size: int) -> Dict[str, str]:
    return {"Range": f"bytes={offset}-{offset + size - 1}"}
