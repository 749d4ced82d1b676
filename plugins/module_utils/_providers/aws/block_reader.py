# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One block of an EBS snapshot, proved by the checksum that AWS sends along, and asked for again where it does not fit.

https://docs.aws.amazon.com/ebs/latest/APIReference/API_GetSnapshotBlock.html
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Callable, List, Optional, TypeVar, Union

from ..._errors import VmferryError
from ..._transfer.retry import Retry, RetryPolicy
from .block_requests import BlockRequests, Proof
from .errors import reason_of
from .request_rate import RequestRates
from .session import Session
from .snapshot_blocks import BLOCK, Page, SnapshotBlocks

Result = TypeVar("Result")
PATIENCE = RetryPolicy(max_retries=6, base=0.5, cap=20.0)  # behind that of the SDK, which sees no body that breaks off
_OTHERS = "DEPENDENCY_ACCESS_DENIED"  # the reason where KMS refuses


class BlockReader:
    """Of one snapshot. Thread-safe; each thread that reads has a request of its own under way."""

    def __init__(
        self,
        session: Session,
        rates: RequestRates,
        snapshot: str,
        label: str,
        sleep: Callable[[float], object],
        key: str = "",
        free: Optional[List[bytearray]] = None,
    ) -> None:
        """`label`: "/dev/sda1 of web01"; `key`: of KMS, of an encrypted snapshot; `free`: memory of blocks that nobody
        needs any more, shared with other disks, so that one after the other takes no more than one."""
        self._session, self._rates, self._snapshot, self._label, self._key = session, rates, snapshot, label, key
        self._retry = Retry(PATIENCE, sleep)
        self._requests = BlockRequests(session)
        self._free: List[bytearray] = [] if free is None else free

    def page(self, blocks: SnapshotBlocks, index: int) -> Page:
        return self._patiently(lambda: blocks.page_at(index))

    def read(self, blocks: SnapshotBlocks, index: int) -> Union[bytes, bytearray]:
        """Raises `checksum_mismatch` where it never arrives as AWS has it. Nothing of one that reads as zeros: b''.
        Its memory may be given back with `reuse`."""
        token = self.page(blocks, index).token(index)
        if not token:
            return b""
        try:
            return self._patiently(lambda: self._block(index, token))
        except VmferryError as error:
            if reason_of(error) != "INVALID_BLOCK_TOKEN":
                raise
        blocks.forget(index)  # seven days are over
        again = self.page(blocks, index).token(index)
        if not again:
            text = f"Block {index} of {self._label} is not in the snapshot {self._snapshot} any more."
            raise VmferryError("conflict", text, "Export again.", retryable=True)
        return self._patiently(lambda: self._block(index, again))

    def reuse(self, block: Union[bytes, bytearray]) -> None:
        """Of one that was read here, and that nobody looks at any more."""
        if isinstance(block, bytearray):
            self._free.append(block)

    def _block(self, index: int, token: str) -> bytearray:
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = bytearray(BLOCK)
        try:
            self._fill(index, token, buffer)
        except BaseException:
            self._free.append(buffer)
            raise
        return buffer

    def _fill(self, index: int, token: str, buffer: bytearray) -> None:
        with self._session.doing(f"Reading block {index} of {self._label}"):
            self._rates.take("GetSnapshotBlock")
            told = self._requests.ask(self._snapshot, index, token, buffer)
            if told is None:
                self._rates.take("GetSnapshotBlock")
                told = self._asked_of_sdk(index, token, buffer)
        if told.algorithm != "SHA256" or not told.checksum:
            text = f"AWS sent block {index} of {self._label} without a SHA-256, so that nobody could prove it."
            raise VmferryError("checksum_mismatch", text, "Look whether endpoint_url is a server of AWS.")
        if told.length != BLOCK or b64encode(sha256(buffer).digest()).decode() != told.checksum:
            text = f"Block {index} of {self._label} arrived otherwise than AWS says that it sent it."
            raise VmferryError("checksum_mismatch", text, "Check the network path.", retryable=True)

    def _asked_of_sdk(self, index: int, token: str, buffer: bytearray) -> Proof:
        answer = self._session.client("ebs").get_snapshot_block(
            SnapshotId=self._snapshot, BlockIndex=index, BlockToken=token
        )
        data: bytes = answer["BlockData"].read()
        if len(data) == BLOCK:
            buffer[:] = data
        return Proof(answer.get("ChecksumAlgorithm", "SHA256"), answer.get("Checksum", ""), len(data))

    def _patiently(self, work: Callable[[], Result]) -> Result:
        try:
            return self._retry.call(work)
        except VmferryError as error:
            if error.kind == "permission_denied" and reason_of(error) == _OTHERS:
                raise self._refused_by_kms(error) from error
            raise

    def _refused_by_kms(self, error: VmferryError) -> VmferryError:
        whose = f"the key {self._key}" if self._key else "the key of KMS that it is encrypted with"
        return VmferryError(
            "permission_denied",
            f"Reading {self._label} failed: the credentials may not use {whose}.",
            "Let their policy, and the key's, allow kms:Decrypt and kms:DescribeKey of it.",
        )
