# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot that an import makes: begun, filled with blocks from several threads, and sealed, by EBS direct.

https://docs.aws.amazon.com/ebs/latest/APIReference/API_StartSnapshot.html, API_PutSnapshotBlock.html and
API_CompleteSnapshot.html. A block that is put again replaces itself, so a retry is always right.
"""

from __future__ import annotations

import time
from base64 import b64encode
from dataclasses import dataclass
from threading import Lock
from typing import Any, Callable, Dict, Mapping, Optional

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from ..._transfer.flow import Flow
from ..._transfer.retry import Retry, RetryPolicy
from .errors import reason_of, was_sent_again
from .import_waits import wait_for
from .session import Session
from .snapshot_blocks import BLOCK, GIB
from .tags import tag_list

# Minutes without a block until AWS gives up on a snapshot, the most that it takes: a timetable may pause a transfer
# over a weekend.
_GIVEN_UP_AFTER = 4320
LONGEST_DESCRIPTION = 255  # characters, of a snapshot as of an image
_SETTLING = 60.0  # seconds in which parts of EBS may not know of a snapshot that was just begun
_SEALED_WITHIN = 1800.0  # seconds for one whose sealing was answered by nobody: it is completed some time after
# Reasons of a ValidationException that another try gets over.
_PASSING = ("WRITE_REQUEST_TIMEOUT", "CONFLICTING_BLOCK_UPDATE")
_MAYBE_SEALED = ("internal", "invalid_config", "not_found", "conflict")  # by a request whose answer got lost
_LAST_ANSWER = 20.0  # seconds for the answer to a request that is under way when an import fails
_POLICY = RetryPolicy(max_retries=6, base=0.5, cap=20.0)  # the SDK has tried some times before
Pace = Callable[[str], object]


def description_of(disk: str, vm: str) -> str:
    """Of a snapshot of a disk, by our id of it, that an import makes."""
    return f"{disk} of {vm}, imported by vmferry.migrate"[:LONGEST_DESCRIPTION]


@dataclass(frozen=True)
class SnapshotPlan:
    """What a snapshot is to be. `size`: bytes, whole GiB. `token`: by which AWS knows a request that it had before.
    `tags`: as they are when it is begun.
    """

    name: str  # of the disk, in messages
    size: int
    token: str
    description: str
    tags: Callable[[], Mapping[str, str]]
    encrypted: bool = False
    kms_key: str = ""  # the ARN; empty: the account's default
    parent: str = ""  # the id of a snapshot that it is a child of, and is encrypted as that is

    def request(self) -> Dict[str, Any]:
        """Asked for once: a token that comes with another request is refused."""
        asked: Dict[str, Any] = {
            "VolumeSize": self.size // GIB,
            "ClientToken": self.token,
            "Description": self.description,
            "Tags": tag_list(self.tags()),
            "Timeout": _GIVEN_UP_AFTER,
        }
        if self.parent:
            asked["ParentSnapshotId"] = self.parent
        elif self.encrypted:  # left out otherwise: the account may encrypt whatever is made
            asked["Encrypted"] = True
            if self.kms_key:
                asked["KmsKeyArn"] = self.kms_key
        return asked


class NewSnapshot:
    """Begun with its first block: one that waits for its turn would be given up by AWS. Thread-safe."""

    def __init__(self, session: Session, plan: SnapshotPlan, flow: Flow, pace: Pace) -> None:
        """`pace` is told the name of each call before it is made, and waits where there are too many."""
        self._session, self._plan, self._flow, self._pace = session, plan, flow, pace
        self._retry = Retry(_POLICY, sleep=flow.sleep)
        self._starting = Lock()
        self._started_at = 0.0
        self._ended = False
        self._unanswered = False  # a request to seal it, which AWS may have had all the same
        self.id = ""

    @property
    def name(self) -> str:
        """Of the disk."""
        return self._plan.name

    def begin(self) -> str:
        """The id. Whoever asks first begins it."""
        with self._starting:
            if not self.id:
                self._flow.raise_if_stopped()
                if self._ended:
                    raise VmferryError("cancelled", f"Writing {self.name} was ended.")
                self.id = self._retry.call(self._start, self._plan.request())
                self._started_at = time.monotonic()
                failpoint("snapshot_begun")
            return self.id

    def end(self) -> str:
        """It is not begun any more. The id, also of one that was just then being begun; '' of none."""
        self._ended = True
        if self._starting.acquire(timeout=_LAST_ANSWER):
            self._starting.release()
        return self.id

    def put(self, index: int, data: bytes, digest: bytes) -> None:
        """`digest`: its SHA-256, which AWS compares with what it receives."""
        self.begin()
        self._flow.raise_if_stopped()
        self._retry.call(self._put, index, data, b64encode(digest).decode())

    def seal(self, count: int, digest: bytes) -> None:
        """`digest`: the SHA-256 over those of all `count` blocks, in their order."""
        try:
            self._retry.call(self._complete, count, b64encode(digest).decode())
        except VmferryError as error:
            if not self._unanswered or error.kind not in _MAYBE_SEALED or not self._was_sealed():
                raise

    def _start(self, asked: Mapping[str, Any]) -> str:
        self._pace("StartSnapshot")
        with self._session.doing(f"Beginning a snapshot for {self._plan.name}"):
            begun = self._session.client("ebs").start_snapshot(**asked)
        if begun.get("BlockSize", BLOCK) != BLOCK:
            text = f"AWS wants blocks of {begun['BlockSize']} bytes for {self._plan.name}, and not of {BLOCK}."
            raise VmferryError("unsupported", text, "Report this with the region.")
        return str(begun["SnapshotId"])

    def _put(self, index: int, data: bytes, checksum: str) -> None:
        self._pace("PutSnapshotBlock")
        doing = f"Writing block {index} of {self._plan.name} to {self.id}"
        try:
            with self._session.doing(doing):
                kept = self._session.client("ebs").put_snapshot_block(
                    SnapshotId=self.id,
                    BlockIndex=index,
                    BlockData=data,
                    DataLength=len(data),
                    Checksum=checksum,
                    ChecksumAlgorithm="SHA256",
                )
        except VmferryError as error:
            settling = error.kind == "not_found" and time.monotonic() < self._started_at + _SETTLING
            error.retryable = error.retryable or settling or reason_of(error) in _PASSING
            raise
        if kept.get("Checksum", checksum) != checksum:
            text = f"{doing} failed: AWS received other bytes than were sent."
            raise VmferryError("checksum_mismatch", text, "Check the network path.", retryable=True)

    def _complete(self, count: int, checksum: str) -> None:
        self._pace("CompleteSnapshot")
        try:
            with self._session.doing(f"Completing the snapshot {self.id} of {self._plan.name}"):
                self._session.client("ebs").complete_snapshot(
                    SnapshotId=self.id,
                    ChangedBlocksCount=count,
                    Checksum=checksum,
                    ChecksumAlgorithm="SHA256",
                    ChecksumAggregationMethod="LINEAR",
                )
        except VmferryError as error:
            self._unanswered = self._unanswered or error.retryable or was_sent_again(error)
            raise

    def _was_sealed(self) -> bool:
        try:
            wait_completed(self._session, {self.id: self._plan.name}, self._flow, _SEALED_WITHIN)
        except VmferryError:
            return False
        return True


def wait_completed(session: Session, snapshots: Mapping[str, str], flow: Flow, limit: float) -> None:
    """Until all of them, each with the name of its disk, are `completed`: from then on they can be read."""
    waiting = dict(snapshots)

    def look() -> Optional[bool]:
        with session.doing(f"Looking at {', '.join(waiting)}"):
            found = session.client("ec2").describe_snapshots(SnapshotIds=list(waiting))["Snapshots"]
        for one in found:
            if one["State"] in ("error", "recoverable"):
                said = one.get("StateMessage") or "it does not say why"
                text = f"AWS gave up on the snapshot {one['SnapshotId']} of {waiting[one['SnapshotId']]}: {said}."
                raise VmferryError("internal", text, "Try again.")
            if one["State"] == "completed":
                del waiting[one["SnapshotId"]]
        return not waiting or None

    if waiting:
        wait_for(flow, look, limit, f"the snapshots {', '.join(waiting)} to be completed")
