# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Object lock: what the server keeps of an object, whoever deletes or replaces it.

It is asked for once an object is complete and proven: what is locked too early is half an export that nobody gets rid
of. https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Mapping, Optional

from ..._errors import VmferryError
from .bucket import Bucket

_PERMISSIONS = (
    "Grant s3:PutObjectRetention, s3:GetObjectRetention, s3:PutObjectLegalHold and s3:GetObjectLegalHold "
    "on the bucket's objects."
)
_PROOF = 60.0  # seconds; more than clocks differ
_NOT_ENABLED = "ObjectLockConfigurationNotFoundError"


@dataclass(frozen=True)
class ObjectLock:
    """`retention`: seconds from when an object is locked on; at most one of it and `until`."""

    mode: str = ""
    until: Optional[datetime] = None
    retention: Optional[float] = None
    legal_hold: bool = False

    @property
    def wanted(self) -> bool:
        return bool(self.mode or self.legal_hold)

    def check(self) -> None:
        """Before the first byte, and not only when the server refuses it."""
        if self.until is not None and self.until <= datetime.now(timezone.utc):
            raise VmferryError(
                "invalid_config",
                f"The storage option object_lock_retain_until is {self.until.isoformat()}, which is over.",
                "Give a time to come, or object_lock_retention.",
            )

    def require(self, bucket: Bucket) -> None:
        """Raises where the bucket locks nothing. Whoever may not ask finds out when the first object is locked."""
        from botocore.exceptions import ClientError

        try:
            with bucket.doing("Reading the object lock configuration of", ""):
                try:
                    answer = bucket.client.get_object_lock_configuration(Bucket=bucket.name)
                except ClientError as error:
                    if error.response.get("Error", {}).get("Code") != _NOT_ENABLED:
                        raise
                    answer = {}
        except VmferryError as error:
            if error.kind == "permission_denied":
                return
            raise
        if answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
            raise VmferryError(
                "invalid_config",
                f"Object lock is asked for, and is not enabled for the bucket {bucket.name}.",
                "Enable it there, together with versioning, or leave the object_lock options out.",
            )

    def prove(self, bucket: Bucket, key: str) -> None:
        """On an object that is removed again, and of which a hidden version stays locked for a moment."""
        with bucket.doing("Writing", key):
            bucket.client.put_object(**bucket.at(key), Body=b"vmferry", **bucket.encryption.creating())
        try:
            replace(self, until=None, retention=_PROOF).put(bucket, key)
        finally:
            if self.legal_hold:
                with suppress(VmferryError):
                    self._hold(bucket, key, "OFF")
            with bucket.doing("Deleting", key):
                bucket.client.delete_object(**bucket.at(key))

    def put(self, bucket: Bucket, key: str) -> None:
        try:
            if self.mode:
                with bucket.doing("Locking", key):
                    bucket.client.put_object_retention(**bucket.at(key), Retention=self._retention())
            if self.legal_hold:
                self._hold(bucket, key, "ON")
        except VmferryError as error:
            if error.kind == "permission_denied":
                error.hint = _PERMISSIONS
            raise
        info = bucket.head(key)
        if info is None or not info.locked:
            raise VmferryError(
                "unsupported",
                f"{bucket.url}/{key} was locked, and the store does not say that it is.",
                f"{_PERMISSIONS[:-1]}, or use a store that has object lock.",
            )

    def _hold(self, bucket: Bucket, key: str, status: str) -> None:
        with bucket.doing("Locking", key):
            bucket.client.put_object_legal_hold(**bucket.at(key), LegalHold={"Status": status})

    def _retention(self) -> Mapping[str, Any]:
        until = self.until
        if until is None:
            until = datetime.now(timezone.utc) + timedelta(seconds=self.retention or 0.0)
        return {"Mode": self.mode, "RetainUntilDate": until}
