# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this S3 server really does, found out at one key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence

from ..._errors import VmferryError
from ..probing import OTHER, SENT, UNUSABLE, accepts, refuses, require_gone
from .abort import abort_upload
from .bucket import Bucket
from .checksums import Checksum
from .pieces import joins_pieces

_UNUSABLE = UNUSABLE | {"not_found"}
_ANOTHER_ETAG = '"00000000000000000000000000000000"'


@dataclass(frozen=True)
class Findings:
    checksum: Optional[Checksum]  # the cheapest that the server compares, else one it at least accepts
    verifies_checksums: bool
    conditional_put: bool
    conditional_replace: bool
    joins_pieces: bool


def probe(bucket: Bucket, key: str, checksums: Sequence[Checksum]) -> Findings:
    """Writes at `key` and removes it again, whatever happens. Raises what writing there raises."""
    try:
        _put(bucket, key)
        checksum, verified = _choose(bucket, key, checksums)
        joins = joins_pieces(bucket, key, checksum.announced if checksum else {})
        return Findings(
            checksum,
            verified,
            joins_pieces=joins,
            conditional_put=refuses(lambda: _put(bucket, key, {"IfNoneMatch": "*"}), _UNUSABLE),
            conditional_replace=refuses(lambda: _put(bucket, key, {"IfMatch": _ANOTHER_ETAG}), _UNUSABLE),
        )
    finally:
        _remove(bucket, key)


def _put(bucket: Bucket, key: str, condition: Optional[Dict[str, str]] = None) -> None:
    with bucket.doing("Writing", key):
        bucket.client.put_object(**bucket.at(key), Body=SENT, **(condition or {}), **bucket.encryption.creating())


def _remove(bucket: Bucket, key: str) -> None:
    with bucket.doing("Deleting", key):
        bucket.client.delete_object(**bucket.at(key))
    require_gone(bucket.head(key) is None, f"{bucket.url}/{key}", "bucket")


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
    upload: Dict[str, Any] = {**bucket.at(key), "UploadId": answer["UploadId"], "PartNumber": 1, "Body": SENT}
    upload.update(bucket.encryption.using())
    try:
        _send_part(bucket, key, upload, checksum.of(memoryview(SENT)))
        return not accepts(lambda: _send_part(bucket, key, upload, checksum.of(memoryview(OTHER))), _UNUSABLE)
    finally:
        abort_upload(bucket, key, answer["UploadId"])


def _send_part(bucket: Bucket, key: str, upload: Mapping[str, Any], checksum: Mapping[str, str]) -> None:
    with bucket.doing("Writing", key):
        bucket.client.upload_part(**upload, **checksum)
