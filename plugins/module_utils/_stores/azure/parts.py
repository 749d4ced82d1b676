# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks that are staged and committed once: the object exists only then, so half an image is never seen.

https://learn.microsoft.com/rest/api/storageservices/put-block-list. Uncommitted blocks belong to a name, not to an
upload: whoever commits a list, or puts an object whole, discards everybody's blocks that are not in it.
"""

from __future__ import annotations

import re
import secrets
from typing import Any, Mapping, Sequence, Set

from ..._blocks import ObjectInfo, Part, PartReceipt
from ..completion import Completion
from ..memory_body import MemoryBody
from ..numbered_parts import NumberedParts, lies_in, require_size
from .checksums import DIGITS, Checksum
from .container import Block, Container, absent, encode_metadata, unchanged
from .discard import discard
from .grant import Grant
from .replacing import Replacing

_MARK = re.compile(r"[0-9a-f]{24}")


def new_mark(now: float) -> str:
    """A word of one upload alone, which tells when it began."""
    return f"{int(now) & 0xFFFFFFFF:08x}{secrets.token_hex(8)}"


def block_id(mark: str, number: int, digest: bytes) -> str:
    """All of one length, as Azure wants them, and at most 64 bytes. What it names is known by it, content and all."""
    return f"{mark}{number:06d}{digest.hex():>0{DIGITS}}"


class AzureParts(NumberedParts):
    def __init__(
        self, container: Container, key: str, checksum: Checksum, metadata: Mapping[str, str] | None, mark: str
    ) -> None:
        super().__init__(f"{container.url}/{key}")
        self._container, self._key, self._checksum, self._mark = container, key, checksum, mark
        encode_metadata(metadata)  # what Azure would refuse in the end, it refuses now
        self._metadata = {} if metadata is None else metadata  # which may be added to until the end
        self._blob = container.blob(key)
        self._staged = False
        self._completion = Completion(self._if_ours, over="conflict")
        self._replacing = Replacing(container, key, mark)
        self._received: Set[Block] = set()

    @classmethod
    def create(
        cls, container: Container, key: str, checksum: Checksum, metadata: Mapping[str, str] | None
    ) -> AzureParts:
        """Azure is told of an upload by its first block only."""
        return cls(container, key, checksum, metadata, new_mark(container.session.now))

    @classmethod
    def resume(
        cls,
        container: Container,
        key: str,
        checksum: Checksum,
        metadata: Mapping[str, str] | None,
        token: str,
        known: int,
    ) -> AzureParts | None:
        """None also where its blocks are named by another checksum than is in use now, and where it was completed and
        has more than the `known` bytes: no part can be added to it.
        """
        mark, _unused, name = token.partition(":")
        if not _MARK.fullmatch(mark) or name != checksum.name:
            return None
        parts = cls(container, key, checksum, metadata, mark)
        return parts if parts._find(known) else None

    @property
    def token(self) -> str:
        return f"{self._mark}:{self._checksum.name}"

    def _find(self, known: int) -> bool:
        found = self._container.blocks(self._key)
        if found is None:
            return False
        self._received = {block for block in found if block[0].startswith(self._mark)}
        self._staged = bool(self._received)
        if not self._staged:
            self._done = self._if_ours()
        return self._staged or (self._done is not None and self._done.size <= known)

    def confirms(self, receipt: PartReceipt) -> bool:
        if self._done is not None:
            return lies_in(receipt, self._done)
        named = receipt.etag.startswith(f"{self._mark}{receipt.part.number:06d}")
        return named and (receipt.etag, receipt.part.size) in self._received

    def write_part(self, part: Part, data: memoryview) -> str:
        self._require_incomplete(self._done)
        digest = self._checksum.of(data)
        name = block_id(self._mark, part.number, digest)
        self._staged = True
        self._replacing.tell()
        with self._container.doing(f"Writing part {part.number} of", self._key, checked=True):
            self._blob.stage_block(
                name,
                MemoryBody(data, self._container.alive),
                length=len(data),
                headers=self._checksum.headers(digest),
            )
        return name

    def copy_part(self, part: Part, grant: Grant, etag: str) -> str:
        """Bytes that the server takes from another object, of that version, by itself."""
        name = block_id(self._mark, part.number, b"")
        self._staged = True
        self._replacing.tell()
        with self._container.hiding(grant.secret).doing(f"Copying part {part.number} of", self._key):
            self._blob.stage_block_from_url(
                name,
                grant.url,
                source_offset=part.offset,
                source_length=part.size,
                headers={"x-ms-source-if-match": etag},
                **grant.options,
            )
        return name

    def _complete(self, receipts: Sequence[PartReceipt], size: int, if_absent: bool) -> ObjectInfo:
        names = [receipt.etag for receipt in receipts]
        condition = absent() if if_absent else {}
        found = self._completion.carry_out(lambda: self._commit(names, condition), lambda info: info.size == size)
        whole = require_size(self._url, found, size)
        if names:
            self._replacing.forget()
        return whole

    def _commit(self, names: Sequence[str], condition: Mapping[str, Any]) -> None:
        from azure.storage.blob import BlobBlock

        metadata = self._container.marked(self._metadata, self._mark)
        with self._container.doing("Completing", self._key):
            self._blob.commit_block_list(
                [BlobBlock(name) for name in names], metadata=metadata, **condition, **self._container.creating
            )

    def _if_ours(self) -> ObjectInfo | None:
        return self._container.if_marked(self._key, self._mark)

    def abort(self) -> None:
        if self._done is not None or not (self._staged or self._completion.begun):
            return
        discard(self._container, self._key, self._mark)
        if self._staged:
            self._replacing.forget()
        self._staged = False
        if not self._completion.begun:
            return
        pending = self._completion.unanswered and self._container.blocks(self._key)
        info = self._completion.settled() if pending else self._if_ours()
        if info is not None:
            with self._container.doing("Removing", self._key):
                self._blob.delete_blob(**unchanged(info.etag))
