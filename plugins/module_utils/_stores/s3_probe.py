# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this S3 server really does, found out at one key. Servers differ, and none says what it ignores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence

from .._errors import VmferryError
from .s3_bucket import Bucket
from .s3_checksums import Checksum
from .s3_parts import abort_upload

_SENT, _OTHER = b"vmferry", b"another"
_UNUSABLE = frozenset({"internal", "unsupported", "invalid_config", "checksum_mismatch", "not_found"})


@dataclass(frozen=True)
class Findings:
    checksum: Optional[Checksum]  # the cheapest that the server compares, else one it at least accepts
    verifies_checksums: bool
    conditional_put: bool
    conditional_replace: bool


def probe(bucket: Bucket, key: str, checksums: Sequence[Checksum]) -> Findings:
    """Writes at `key` and removes it again, whatever happens. Raises what writing there raises."""
    try:
        _put(bucket, key)
        checksum, verified = _choose(bucket, key, checksums)
        return Findings(
            checksum,
            verified,
            conditional_put=_refuses(bucket, key, {"IfNoneMatch": "*"}),
            conditional_replace=_refuses(bucket, key, {"IfMatch": '"00000000000000000000000000000000"'}),
        )
    finally:
        _remove(bucket, key)


def _put(bucket: Bucket, key: str, condition: Optional[Dict[str, str]] = None) -> None:
    with bucket.doing("Writing", key):
        bucket.client.put_object(**bucket.at(key), Body=_SENT, **(condition or {}), **bucket.encryption.creating())


def _remove(bucket: Bucket, key: str) -> None:
    with bucket.doing("Deleting", key):
        bucket.client.delete_object(**bucket.at(key))
    if bucket.head(key) is not None:
        raise VmferryError(
            "unsupported",
            f"The probe {bucket.url}/{key} is still there after its deletion.",
            "Use a bucket in which objects can be deleted.",
        )


def _refuses(bucket: Bucket, key: str, condition: Dict[str, str]) -> bool:
    try:
        _put(bucket, key, condition)
    except VmferryError as error:
        if error.kind == "conflict":
            return True
        if error.kind in _UNUSABLE:
            return False
        raise
    return False


def _choose(bucket: Bucket, key: str, checksums: Sequence[Checksum]) -> tuple[Optional[Checksum], bool]:
    """Tried on a part, since parts carry the data."""
    accepted: Optional[Checksum] = None
    for checksum in checksums:
        try:
            verified = _verifies(bucket, key, checksum)
        except VmferryError as error:
            if error.kind not in _UNUSABLE:
                raise
            continue
        if verified:
            return checksum, True
        accepted = accepted or checksum
    return accepted, False


def _verifies(bucket: Bucket, key: str, checksum: Checksum) -> bool:
    """Raises when even the right checksum is refused."""
    with bucket.doing("Writing", key):
        answer = bucket.client.create_multipart_upload(
            **bucket.at(key), **checksum.announced, **bucket.encryption.creating()
        )
    upload: Dict[str, Any] = {**bucket.at(key), "UploadId": answer["UploadId"], "PartNumber": 1, "Body": _SENT}
    upload.update(bucket.encryption.using())
    try:
        with bucket.doing("Writing", key):
            bucket.client.upload_part(**upload, **checksum.of(memoryview(_SENT)))
        try:
            with bucket.doing("Writing", key):
                bucket.client.upload_part(**upload, **checksum.of(memoryview(_OTHER)))
        except VmferryError as error:
            if error.kind not in _UNUSABLE:
                raise
            return True
        return False
    finally:
        abort_upload(bucket, key, answer["UploadId"])
