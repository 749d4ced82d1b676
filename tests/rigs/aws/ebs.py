# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""EBS direct: https://docs.aws.amazon.com/ebs/latest/APIReference/API_Operations.html

Which reason AWS gives for a snapshot that is not completed is nowhere documented, and nobody should depend on it.
"""

from __future__ import annotations

import hmac
import json
import secrets
from base64 import b64decode, b64encode
from binascii import Error as NoBase64
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from rigs.aws.blocks import BLOCK, GIB, Content, Disks, Stored
from rigs.aws.rest_api import Answer, ApiError, RestApi, now

EXPIRES = 7 * 86400  # seconds that block tokens are good for
_KEY_OF_TOKENS = 20  # bytes


def invalid(reason: str, message: str) -> ApiError:
    return ApiError("ValidationException", message, reason)


class EbsDirect:
    """`made(region, account, snapshot id, stored, asked)` tells EC2 of a snapshot, `known(region, account, id)` asks it
    whether there is one, and `encryption(…)` how it is encrypted.
    """

    def __init__(self, disks: Disks, ec2: Any) -> None:
        self.api = RestApi("ebs")
        self._disks = disks
        self._ec2 = ec2
        self._secret = secrets.token_bytes(16)
        self._generation = 0  # tokens of one before are expired

    def expire_tokens(self) -> None:
        self._generation += 1

    def answer(self, operation: Any, asked: Mapping[str, Any], region: str, account: str) -> Answer:
        """Raises `ApiError`."""
        work: Callable[..., dict[str, Any]] = {
            "ListSnapshotBlocks": self._list_snapshot_blocks,
            "ListChangedBlocks": self._list_changed_blocks,
            "GetSnapshotBlock": self._get_snapshot_block,
            "StartSnapshot": self._start_snapshot,
            "PutSnapshotBlock": self._put_snapshot_block,
            "CompleteSnapshot": self._complete_snapshot,
        }[operation.name]
        return self.api.answer(operation, work(asked, region, account))

    # --- reading ------------------------------------------------------------------------------------------------------

    def _list_snapshot_blocks(self, asked: Mapping[str, Any], region: str, account: str) -> dict[str, Any]:
        snapshot = asked["SnapshotId"]
        stored = self._completed(snapshot, region, account)
        indexes, more = self._page(asked, snapshot, stored.content)
        blocks = [{"BlockIndex": index, "BlockToken": self._token(snapshot, index)} for index in indexes]
        return self._listed(stored, "Blocks", blocks, more)

    def _list_changed_blocks(self, asked: Mapping[str, Any], region: str, account: str) -> dict[str, Any]:
        """In either direction: the second may be the older one."""
        if "FirstSnapshotId" not in asked:
            raise invalid("INVALID_PARAMETER_VALUE", "FirstSnapshotId is needed")
        names = asked["FirstSnapshotId"], asked["SecondSnapshotId"]
        first, second = (self._completed(name, region, account) for name in names)
        if first.lineage != second.lineage:
            raise invalid("UNRELATED_SNAPSHOTS", f"{names[0]} and {names[1]} are not of one lineage")
        held = first.content, second.content
        differing = [index for index in {**held[0], **held[1]} if held[0].get(index) is not held[1].get(index)]
        indexes, more = self._page(asked, "/".join(names), differing)
        changed = []
        for index in indexes:
            told: dict[str, Any] = {"BlockIndex": index}
            for key, name, content in zip(("FirstBlockToken", "SecondBlockToken"), names, held):
                if index in content:
                    told[key] = self._token(name, index)
            changed.append(told)
        return self._listed(second, "ChangedBlocks", changed, more)

    def _get_snapshot_block(self, asked: Mapping[str, Any], region: str, account: str) -> dict[str, Any]:
        snapshot, index = asked["SnapshotId"], asked["BlockIndex"]
        stored = self._completed(snapshot, region, account)
        self._check_token(asked["BlockToken"], snapshot, index)
        block = stored.content.get(index)
        if block is None:
            raise invalid("INVALID_BLOCK", f"{snapshot} has no block {index}")
        return {
            "DataLength": BLOCK,
            "BlockData": self._disks.blocks.read(block),
            "Checksum": b64encode(block.checksum).decode(),
            "ChecksumAlgorithm": "SHA256",
        }

    def _listed(self, stored: Stored, key: str, found: list[dict[str, Any]], more: str | None) -> dict[str, Any]:
        told = {key: found, "ExpiryTime": now() + EXPIRES, "VolumeSize": stored.size, "BlockSize": BLOCK}
        return {**told, "NextToken": more}

    def _page(self, asked: Mapping[str, Any], of: str, found: Content | Sequence[int]) -> tuple[list[int], str | None]:
        """The indexes of a page in order, and the token of the next one."""
        start = asked.get("StartingBlockIndex", 0)
        if "NextToken" in asked:
            start = self._page_start(asked["NextToken"], of)
        indexes = sorted(index for index in found if index >= start)
        size = min(asked.get("MaxResults", 10_000), self._disks.page)
        page, rest = indexes[:size], indexes[size:]
        return page, self.page_token(of, rest[0]) if rest else None

    def page_token(self, of: str, start: int) -> str:
        told = json.dumps([self._generation, start]).encode()
        return b64encode(self._signed(f"page {of}", told) + told).decode()

    def _page_start(self, token: str, of: str) -> int:
        try:
            text = b64decode(token, validate=True)
        except NoBase64 as error:
            raise invalid("INVALID_PAGE_TOKEN", "The page token is malformed") from error
        told = text[_KEY_OF_TOKENS:]
        if not hmac.compare_digest(text[:_KEY_OF_TOKENS], self._signed(f"page {of}", told)):
            raise invalid("INVALID_PAGE_TOKEN", "The page token is not of this request")
        generation, start = json.loads(told)
        if generation != self._generation:
            raise invalid("INVALID_PAGE_TOKEN", "The page token is expired")
        return int(start)

    def _token(self, snapshot: str, index: int) -> str:
        """Each list has tokens of its own; those before are good until they expire."""
        told = self._generation.to_bytes(4, "big") + secrets.token_bytes(6)
        return b64encode(self._signed(f"block {snapshot} {index}", told) + told).decode()

    def _check_token(self, token: str, snapshot: str, index: int) -> None:
        try:
            text = b64decode(token, validate=True)
        except NoBase64 as error:
            raise invalid("INVALID_BLOCK_TOKEN", "The block token is malformed") from error
        told = text[_KEY_OF_TOKENS:]
        if not hmac.compare_digest(text[:_KEY_OF_TOKENS], self._signed(f"block {snapshot} {index}", told)):
            raise invalid("INVALID_BLOCK_TOKEN", "The block token is not of this block")
        if told[:4] != self._generation.to_bytes(4, "big"):
            raise invalid("INVALID_BLOCK_TOKEN", "The block token is expired")

    def _signed(self, of: str, told: bytes) -> bytes:
        return hmac.new(self._secret, of.encode() + b"\0" + told, sha256).digest()[:_KEY_OF_TOKENS]

    def empty_page(self, operation: Any, asked: Mapping[str, Any], region: str, account: str) -> Answer:
        """AWS gives one when it has looked at much and found nothing: the next page begins where this one would."""
        names = [asked[key] for key in ("FirstSnapshotId", "SecondSnapshotId", "SnapshotId") if key in asked]
        stored = self._completed(names[-1], region, account)
        of = "/".join(names)
        start = asked.get("StartingBlockIndex", 0)
        if "NextToken" in asked:
            start = self._page_start(asked["NextToken"], of)
        key = "ChangedBlocks" if operation.name == "ListChangedBlocks" else "Blocks"
        return self.api.answer(operation, self._listed(stored, key, [], self.page_token(of, start)))

    # --- writing ------------------------------------------------------------------------------------------------------

    def _start_snapshot(self, asked: Mapping[str, Any], region: str, account: str) -> dict[str, Any]:
        told = json.dumps(asked, sort_keys=True)
        with self._disks.lock:
            for snapshot, stored in self._disks.snapshots.items():
                if stored.token and stored.token == asked.get("ClientToken") and stored.owner == account:
                    if stored.asked != told:
                        raise ApiError("ConflictException", "The client token was used for another request")
                    return self._started(snapshot, region, account)
            parent = asked.get("ParentSnapshotId", "")
            content: Content = {}
            if parent:
                content = self._parent_of(asked, region, account)
            _check_tags(asked.get("Tags", []))
            lineage = self._disks.snapshots[parent].lineage if parent else ""
            stored = Stored(asked["VolumeSize"], content, lineage, account, open=True, parent=parent, asked=told)
            stored.token, stored.polls = asked.get("ClientToken", ""), self._disks.polls
            snapshot = self._ec2.snapshot_started(region, account, stored, asked)
            stored.lineage = lineage or snapshot
            self._disks.snapshots[snapshot] = stored
            return self._started(snapshot, region, account)

    def _parent_of(self, asked: Mapping[str, Any], region: str, account: str) -> Content:
        parent = asked["ParentSnapshotId"]
        stored = self._completed(parent, region, account)
        if "Encrypted" in asked or "KmsKeyArn" in asked:
            raise invalid("INVALID_PARAMETER_VALUE", "A child is encrypted as its parent is")
        if asked["VolumeSize"] < stored.size:
            raise invalid("INVALID_VOLUME_SIZE", f"{parent} has {stored.size} GiB")
        return dict(stored.content)

    def _started(self, snapshot: str, region: str, account: str) -> dict[str, Any]:
        stored = self._disks.snapshots[snapshot]
        told = self._ec2.described(region, account, snapshot)
        return {
            "SnapshotId": snapshot,
            "OwnerId": account,
            "Status": stored.state,
            "VolumeSize": stored.size,
            "BlockSize": BLOCK,
            "ParentSnapshotId": stored.parent or None,
            **told,
        }

    def _put_snapshot_block(self, asked: Mapping[str, Any], region: str, account: str) -> dict[str, Any]:
        stored = self._open(asked["SnapshotId"], region, account)
        data, index = asked["BlockData"], asked["BlockIndex"]
        if asked["DataLength"] != BLOCK or len(data) != BLOCK:
            raise invalid("INVALID_PARAMETER_VALUE", f"A block has {BLOCK} bytes")
        if index >= stored.size * GIB // BLOCK:
            raise invalid("INVALID_BLOCK", f"{index} is behind the end of the volume")
        block = self._disks.blocks.add(data)
        checksum = b64encode(block.checksum).decode()
        if checksum != asked["Checksum"]:
            raise invalid("INVALID_PARAMETER_VALUE", "The checksum is not that of the data")
        with self._disks.lock:
            if not stored.open:
                raise invalid("INVALID_SNAPSHOT_ID", "The snapshot is sealed")
            stored.content[index] = block
            stored.written.add(index)
        return {"Checksum": checksum, "ChecksumAlgorithm": "SHA256"}

    def _complete_snapshot(self, asked: Mapping[str, Any], region: str, account: str) -> dict[str, Any]:
        with self._disks.lock:
            stored = self._open(asked["SnapshotId"], region, account)
            if asked["ChangedBlocksCount"] != len(stored.written):
                raise invalid("INVALID_PARAMETER_VALUE", f"{len(stored.written)} blocks were written")
            if "Checksum" in asked:
                if asked.get("ChecksumAlgorithm") != "SHA256" or asked.get("ChecksumAggregationMethod") != "LINEAR":
                    raise invalid("INVALID_PARAMETER_VALUE", "A checksum needs its algorithm and its method")
                joined = b"".join(stored.content[index].checksum for index in sorted(stored.written))
                if asked["Checksum"] != b64encode(sha256(joined).digest()).decode():
                    raise invalid("INVALID_PARAMETER_VALUE", "The checksum is not that of the blocks")
            stored.open = False
        return {"Status": stored.state}

    def _open(self, snapshot: str, region: str, account: str) -> Stored:
        stored = self._found(snapshot, region, account)
        if not stored.open or stored.owner != account:
            raise invalid("INVALID_SNAPSHOT_ID", f"{snapshot} is not open for writing")
        return stored

    def _completed(self, snapshot: str, region: str, account: str) -> Stored:
        stored = self._found(snapshot, region, account)
        if stored.state != "completed":
            raise invalid("INVALID_SNAPSHOT_ID", f"{snapshot} is {stored.state}, not completed")
        return stored

    def _found(self, snapshot: str, region: str, account: str) -> Stored:
        stored = self._disks.snapshots.get(snapshot)
        if stored is None or not self._ec2.has_snapshot(region, account, snapshot):
            message = f"The snapshot '{snapshot}' does not exist."
            raise ApiError("ResourceNotFoundException", message, "SNAPSHOT_NOT_FOUND")
        return stored


def _check_tags(tags: Sequence[Mapping[str, str]]) -> None:
    keys = [tag.get("Key", "") for tag in tags]
    if len(set(keys)) != len(keys) or any(not key or key.startswith("aws:") for key in keys):
        raise invalid("INVALID_TAG", "A key is missing, reserved, or there twice")
