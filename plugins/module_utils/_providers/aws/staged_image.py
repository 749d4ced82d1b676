# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where in S3 images lie that AWS writes or reads, and one that it exported, read by ranges.

Each attempt has a prefix of its own, which names it, so that whatever lies there is nobody else's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from threading import Lock
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, Set

from ..._blocks import Extent, Piece
from ..._errors import VmferryError
from ..._images.inspect.image import inspect_image
from ..._images.vmdk.reader import VmdkReader
from ..._transfer.retry import Retry, RetryPolicy
from ..job import Job
from .crew import Crew, Task
from .session import Session
from .tags import ATTEMPT, LONGEST_VALUE, STAGING

_PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9._/-]*))?")  # what a tag can hold, too
_OWN = re.compile(r"(?:.*/)?vmferry-[A-Za-z0-9-]+-([0-9a-f]{8})/")
_PARALLEL = 8  # requests under way
_PATIENCE = RetryPolicy(max_retries=6, base=0.5, cap=20.0)  # behind that of the SDK, which sees no body that breaks off


def split_staging(url: str) -> tuple[str, str]:
    """The bucket, and the prefix that ends in / unless it is empty. Raises `invalid_config`."""
    found = _PLACE.fullmatch(url)
    if found is None:
        text = (
            f"The staging place {url!r} is no bucket of S3, with a prefix of letters, digits and . _ / - at the most."
        )
        raise VmferryError("invalid_config", text, "Write for example s3://staging-bucket/vm-exports.")
    prefix = (found[2] or "").strip("/")
    return found[1], f"{prefix}/" if prefix else ""


@dataclass(frozen=True)
class StagedPlace:
    """`prefix`: of all keys that an attempt has in the bucket."""

    bucket: str
    prefix: str

    @classmethod
    def of_job(cls, staging: str, job: Job) -> StagedPlace:
        bucket, prefix = split_staging(staging)
        place = cls(bucket, f"{prefix}vmferry-{job.job_id}-{job.attempt}/")
        if len(place.url) > LONGEST_VALUE:
            text = f"The staging place {staging} is too long by {len(place.url) - LONGEST_VALUE} characters."
            raise VmferryError("invalid_config", text, "Give it a shorter prefix.")
        return place

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Optional[StagedPlace]:
        """None where there is none, or where the tag names anything else than a place of this very attempt."""
        found = _PLACE.fullmatch(tags.get(STAGING, ""))
        own = _OWN.fullmatch(found[2] or "") if found else None
        if found is None or own is None or own[1] != tags.get(ATTEMPT):
            return None
        return cls(found[1], found[2])

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def objects(self, session: Session, doing: str) -> List[Mapping[str, Any]]:
        """As ListObjectsV2 tells them."""
        with session.doing(doing):
            pages = session.client("s3").get_paginator("list_objects_v2")
            answers = pages.paginate(Bucket=self.bucket, Prefix=self.prefix)
            return [one for answer in answers for one in answer.get("Contents") or ()]

    def clear(self, session: Session, vm: str, last: str = "") -> None:
        """Raises where anything stays. That the bucket is gone, and all with it, is no error. `last`: the name of what
        goes once nothing else is there."""
        doing = f"Removing what lies of {vm} in {self.url}"
        try:
            found = [str(one["Key"]) for one in self.objects(session, doing)]
            for key in sorted(found, key=lambda one: one == f"{self.prefix}{last}"):
                with session.doing(doing):
                    session.client("s3").delete_object(Bucket=self.bucket, Key=key)
            left = self.objects(session, doing)
        except VmferryError as error:
            if error.kind != "not_found":
                raise
            return
        if left:
            text = f"{doing} failed: {left[0]['Key']} is there again."
            raise VmferryError("conflict", text, "Look who writes there.", retryable=True)


class StagedDisk:
    """Plays BlockSource: the one image that AWS wrote there, which nobody vouches for."""

    def __init__(
        self, session: Session, place: StagedPlace, size: int, label: str, sleep: Callable[[float], object]
    ) -> None:
        """`size`: of the volume, in bytes. Raises `conflict` and `invalid_config` for what is not its image."""
        self._session, self._bucket, self._label = session, place.bucket, label
        self._retry = Retry(_PATIENCE, sleep)
        self._lock = Lock()
        self._closed = False
        self._asking: Set[Task[bytes]] = set()
        self._crew = Crew(_PARALLEL)
        try:
            self._image = self._opened(place, size)
        except BaseException:
            self.close()
            raise
        self.size = self._image.size

    def extents(self) -> Iterator[Extent]:
        return self._image.extents()

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._image.read_into(pieces)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            asking = list(self._asking)
        for task in asking:
            task.give_up(self._cancelled())
        self._crew.close()

    def _opened(self, place: StagedPlace, size: int) -> VmdkReader:
        found = place.objects(self._session, f"Looking for the image of {self._label}")
        if len(found) != 1:
            names = ", ".join(one["Key"] for one in found[:5]) or "nothing"
            text = f"AWS should have written one image of {self._label} to {place.url}, and wrote {names}."
            raise VmferryError("conflict", text, "Leave method out, or set it to direct.")
        self._key, self._etag, length = found[0]["Key"], found[0]["ETag"], int(found[0]["Size"])
        self._where = f"s3://{self._bucket}/{self._key}"
        inspect_image(self.read_at, length, expected="vmdk").approve(self._where)
        image = VmdkReader(self.read_at, length, where=self._where)
        if image.size != size:
            text = f"{self._where} is of a disk of {image.size} bytes, and {self._label} has {size}."
            raise VmferryError("conflict", text, "Leave method out, or set it to direct.")
        return image

    def read_at(self, offset: int, buffer: memoryview) -> None:
        """Whoever waits here is woken by `close`."""
        length = len(buffer)
        if not length:
            return
        task: Task[bytes] = Task(lambda: self._retry.call(self._range, offset, length))
        with self._lock:
            if self._closed:
                raise self._cancelled()
            self._asking.add(task)
        self._crew.add(task)
        try:
            buffer[:] = task.result()
        finally:
            with self._lock:
                self._asking.discard(task)

    def _range(self, offset: int, length: int) -> bytes:
        """Of the very object that was listed: another one is refused by its ETag."""
        span = f"{offset}-{offset + length - 1}"
        with self._session.doing(f"Reading bytes {span} of {self._where}"):
            answer = self._session.client("s3").get_object(
                Bucket=self._bucket, Key=self._key, Range=f"bytes={span}", IfMatch=self._etag
            )
            body = answer["Body"]
            try:
                data: bytes = body.read() if answer.get("ContentRange", "").startswith(f"bytes {span}/") else b""
            finally:
                body.close()
        if len(data) != length:
            text = f"Reading bytes {span} of {self._where} brought {len(data)} bytes of {length}."
            raise VmferryError("network", text, "Check the network path.")
        return data

    def _cancelled(self) -> VmferryError:
        return VmferryError("cancelled", f"Reading {self._label} was ended.")
