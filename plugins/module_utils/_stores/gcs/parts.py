# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object from parts in any order: each a temporary object under a name that no key can have, joined in the end.

Cloud Storage has no parts of its own that arrive in any order, but for its S3-like interface, which takes other
credentials and says no CRC32C of the whole. A temporary object is named `<key>.<mark>.<what it holds>.part`: `mark` is
a word of the upload alone, and what it holds ends in its CRC32C. So a part that is sent again with the same bytes lands
on itself, one that is sent with others stands beside it, and a receipt says which of the two is meant.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Dict, Iterator, Mapping, Optional, Sequence, Tuple

from ..._blocks import ObjectInfo, Part, PartReceipt
from ..._errors import VmferryError
from ..completion import Completion
from ..keys import UPLOAD, is_key
from ..metadata import UPLOAD_TOKEN, checked_metadata
from ..numbered_parts import NumberedParts, lies_in
from .bucket import Bucket, Resource, info_of, matches
from .crc32c import crc32c
from .tree import Node, roots_over, still_to_join, whole_of

_RECEIPT = re.compile(r"[0-9a-f]{8}")
_TEMPORARY = re.compile(r"(.+)\.([0-9a-f]{16})\.([0-9a-f]{16})\.part", re.DOTALL)
_SWEEPS = 20  # what was under way when an upload was aborted may land afterwards
SETTLE = 2.0  # seconds in which a request that was never answered may still take effect
_SETTLE_PAUSE = 0.25


class GcsParts(NumberedParts):
    def __init__(self, bucket: Bucket, key: str, metadata: Mapping[str, str] | None, mark: str) -> None:
        super().__init__(f"{bucket.url}/{key}")
        self._bucket, self._key, self._mark = bucket, key, mark
        checked_metadata(metadata)
        self._given = {} if metadata is None else metadata  # which may be added to until the end
        self._completion = Completion(self._ours)
        self._was_there = False  # another process has completed it
        self._there: Dict[str, Node] = {}  # what an earlier process left, by name
        self._made: ObjectInfo | None = None

    @classmethod
    def create(cls, bucket: Bucket, key: str, metadata: Mapping[str, str] | None) -> GcsParts:
        return cls(bucket, key, metadata, secrets.token_hex(8))

    @classmethod
    def resume(
        cls, bucket: Bucket, key: str, metadata: Mapping[str, str] | None, token: str, known: int
    ) -> GcsParts | None:
        if not UPLOAD.fullmatch(token):
            return None
        parts = cls(bucket, key, metadata, token)
        return parts if parts._find(known) else None

    @property
    def _metadata(self) -> Dict[str, str]:
        return {**checked_metadata(self._given), UPLOAD_TOKEN: self._mark}

    @property
    def token(self) -> str:
        return self._mark

    def _find(self, known: int) -> bool:
        self._there = {node.name: node for node in self._sound()}
        ours = self._ours()
        if ours is not None and int(ours["size"]) <= known:
            self._made = info_of(self._key, ours, self._bucket.connection.now)
        self._completion.begun = self._was_there = ours is not None
        return self._made is not None or bool(self._there)

    def confirms(self, receipt: PartReceipt) -> bool:
        if self._made is not None:
            return lies_in(receipt, self._made)
        part = _part_of(receipt)
        if part is None:
            return False
        found = self._there.get(part.name)
        if found is not None:
            return found.size == part.size
        return any(node.level and node.holds(part.index) for node in self._there.values())

    def write_part(self, part: Part, data: memoryview) -> str:
        self._require_incomplete(self._made)
        node = Node(0, part.number, len(data), crc32c(data))
        doing = self._bucket.doing(f"Writing part {part.number} of", self._key)
        try:
            self._bucket.insert(doing, self._named(node), data)
        except VmferryError as error:
            self._completion.note(error)
            raise
        return f"{node.crc:08x}"

    def _complete(self, receipts: Sequence[PartReceipt], size: int, if_absent: bool) -> ObjectInfo:
        if self._made is None:
            condition = {"ifGenerationMatch": "0"} if if_absent else {}
            made = self._make(receipts, size, condition)
            self._made = info_of(self._key, made, self._bucket.connection.now)
        self._sweep()
        return self._made

    def _make(self, receipts: Sequence[PartReceipt], size: int, condition: Mapping[str, str]) -> Resource:
        parts = [self._required(receipt) for receipt in receipts]
        crc, whole = whole_of(parts)
        if whole != size:
            raise VmferryError("internal", f"The parts of {self._url} are {whole} bytes, not {size}.")
        again = self._completion.begun
        found = self._completion.carry_out(
            lambda: self._join(parts, again, condition), lambda made: matches(made, crc, size)
        )
        if found is None or not matches(found, crc, size):
            raise VmferryError(
                "checksum_mismatch",
                f"{self._url} is not what was uploaded, by the server's own word.",
                "Another writer of this object, or a fault of the server.",
            )
        return found

    def _required(self, receipt: PartReceipt) -> Node:
        part = _part_of(receipt)
        if part is None:
            raise VmferryError("internal", f"A receipt of {self._url} is not of this store.")
        return part

    def _join(self, parts: Sequence[Node], again: bool, condition: Mapping[str, str]) -> None:
        doing = self._bucket.doing("Completing", self._key)
        if condition and self._bucket.look(self._key) is not None:  # an emulator joins parts on no condition
            raise VmferryError("conflict", f"{self._bucket.url}/{self._key} exists already.")
        if not parts:
            self._bucket.insert(doing, self._key, memoryview(b""), condition=condition, metadata=self._metadata)
            return
        if again:
            self._there = {node.name: node for node in self._sound()}
        roots = roots_over(parts)
        for level in still_to_join(roots, {name: node.size for name, node in self._there.items()}):
            self._bucket.each(self._join_one, level)
        sources = [self._named(node) for node in roots]
        self._bucket.compose(doing, self._key, sources, self._metadata, condition)

    def _join_one(self, node: Node) -> None:
        doing = self._bucket.doing("Joining parts of", self._key)
        found = self._bucket.compose(doing, self._named(node), [self._named(source) for source in node.sources])
        if not matches(found, node.crc, node.size):
            raise VmferryError(
                "checksum_mismatch",
                f"{doing} failed: the server joined them to something else, by its own word.",
                "Another writer of this object, or a fault of the server.",
            )

    def _named(self, node: Node) -> str:
        return f"{self._key}.{self._mark}.{node.name}.part"

    def _sound(self) -> Iterator[Node]:
        """Those of this upload that hold what their names say."""
        for item in self._temporary():
            found = _TEMPORARY.fullmatch(item["key"])
            node = Node.named(found[3], int(item["size"])) if found else None
            if node is not None and matches(item, node.crc, node.size):
                yield node

    def _temporary(self) -> Iterator[Resource]:
        return self._bucket.items("Listing the parts of", f"{self._key}.{self._mark}.")

    def _ours(self) -> Optional[Resource]:
        found = self._bucket.look(self._key)
        return found if found and (found.get("metadata") or {}).get(UPLOAD_TOKEN) == self._mark else None

    def abort(self) -> None:
        """The parts first: nothing can be joined of what is gone, not even by a request that is late. An object that
        another process had completed stays."""
        if self._done is not None:
            return
        self._sweep()
        if self._completion.unanswered:
            time.sleep(SETTLE)
            self._sweep()
        if not self._was_there and (self._completion.begun or self._made is not None):
            found = self._ours()
            if found is not None:
                self._bucket.remove(self._key, found.get("generation"))

    def _sweep(self) -> None:
        for turn in range(_SWEEPS):
            time.sleep(_SETTLE_PAUSE if turn > 1 else 0)
            left = list(self._temporary())
            if not left:
                return
            self._bucket.each(lambda item: remove_temporary(self._bucket, item), left)
        raise VmferryError(
            "conflict",
            f"Parts of {self._url} keep coming back although they were removed.",
            "Another process is still sending parts of it.",
            retryable=True,
        )


def _part_of(receipt: PartReceipt) -> Node | None:
    if not _RECEIPT.fullmatch(receipt.etag):
        return None
    return Node(0, receipt.part.number, receipt.part.size, int(receipt.etag, 16))


def remove_temporary(bucket: Bucket, item: Resource) -> None:
    bucket.remove(item["key"], item.get("generation"))


def uploads_below(bucket: Bucket, prefix: str) -> Mapping[Tuple[str, str], Sequence[Resource]]:
    """What unfinished uploads left, by the key that was to be and the upload's mark."""
    found: Dict[Tuple[str, str], list[Resource]] = {}
    for item in bucket.items("Listing", prefix):
        named = _TEMPORARY.fullmatch(item["key"])
        if named and is_key(named[1]):
            found.setdefault((named[1], named[2]), []).append(item)
    return found
