# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A multipart upload: the object exists only once it is complete, so half an image is never seen."""

from __future__ import annotations

import secrets
import time
from typing import Any, Dict, Mapping, Sequence

from .._blocks import ObjectInfo, Part, PartReceipt
from .._errors import VmferryError
from .s3_body import MemoryBody
from .s3_bucket import UPLOAD_TOKEN, Bucket, encode_metadata
from .s3_checksums import Checksum

_ABORTS = 20  # parts that were under way when an upload was aborted may land afterwards and have to be aborted again
_ABORT_PAUSE = 0.25  # seconds
_UNANSWERED = ("timeout", "network")
SETTLE = 15.0  # seconds in which a completion that was never answered is waited for
_SETTLE_PAUSE = 0.5


class S3Parts:
    any_offset = False

    def __init__(self, bucket: Bucket, key: str, checksum: Checksum | None, metadata: Mapping[str, str] | None) -> None:
        self._bucket, self._key, self._checksum = bucket, key, checksum
        self._token = secrets.token_hex(16)
        self._metadata = {**encode_metadata(metadata), UPLOAD_TOKEN: self._token}
        self._completing = self._unanswered = False
        self._done: ObjectInfo | None = None
        with bucket.doing("Writing", key):
            answer = bucket.client.create_multipart_upload(
                **bucket.at(key),
                Metadata=self._metadata,
                **(checksum.announced if checksum else {}),
                **bucket.encryption.creating(),
            )
        self._upload: Dict[str, Any] = {**bucket.at(key), "UploadId": answer["UploadId"]}

    def write_at(self, offset: int, data: memoryview) -> None:
        raise VmferryError("internal", f"{self._bucket.url}/{self._key} takes numbered parts, not bytes at an offset.")

    def write_part(self, part: Part, data: memoryview) -> str:
        checksum = self._checksum.of(data) if self._checksum else {}
        with self._bucket.doing(f"Writing part {part.number} of", self._key):
            answer = self._bucket.client.upload_part(
                **self._upload,
                PartNumber=part.number,
                Body=MemoryBody(data, self._bucket.alive),
                ContentLength=len(data),
                **checksum,
                **self._bucket.encryption.using(),
            )
        return encode_receipt(answer["ETag"], checksum)

    def complete(self, receipts: Sequence[PartReceipt], size: int) -> ObjectInfo:
        if self._done is None:
            self._done = self._complete(receipts, size)
        return self._done

    def _complete(self, receipts: Sequence[PartReceipt], size: int) -> ObjectInfo:
        self._completing = True
        try:
            if receipts:
                self._join(receipts)
            else:
                self._put_empty()
        except VmferryError as error:
            # Whether it took effect is not known after a lost answer, and a second call finds no upload any more,
            # maybe because the first one is still being carried out.
            self._unanswered = self._unanswered or error.kind in _UNANSWERED
            info = self._settled() if self._unanswered and error.kind == "not_found" else self._if_ours()
            if info is None or info.size != size:
                raise
            return info
        info = self._if_ours()
        if info is None or info.size != size:
            found = "another object" if info is None else f"{info.size} bytes"
            raise VmferryError(
                "checksum_mismatch",
                f"{self._bucket.url}/{self._key} should have {size} bytes after its upload, but {found} is there.",
            )
        return info

    def _join(self, receipts: Sequence[PartReceipt]) -> None:
        parts = [{"PartNumber": receipt.part.number, **decode_receipt(receipt.etag)} for receipt in receipts]
        with self._bucket.doing("Completing", self._key):
            self._bucket.client.complete_multipart_upload(
                **self._upload, MultipartUpload={"Parts": parts}, **self._bucket.encryption.using()
            )

    def _put_empty(self) -> None:
        """No upload can be made of no parts."""
        self._abort_upload()
        with self._bucket.doing("Writing", self._key):
            self._bucket.client.put_object(
                **self._bucket.at(self._key), Body=b"", Metadata=self._metadata, **self._bucket.encryption.creating()
            )

    def _if_ours(self) -> ObjectInfo | None:
        info = self._bucket.head(self._key)
        if info is None or info.metadata.get(UPLOAD_TOKEN) != self._token:
            return None
        return without_token(info)

    def abort(self) -> None:
        if self._done is not None:
            return
        self._abort_upload()
        if not self._completing:
            return
        if (self._settled() if self._unanswered else self._if_ours()) is not None:
            with self._bucket.doing("Removing", self._key):
                self._bucket.client.delete_object(**self._bucket.at(self._key))
        elif self._unanswered:
            raise VmferryError(
                "timeout",
                f"{self._bucket.url}/{self._key} may still appear: the server never answered its completion.",
                retryable=False,
            )

    def _settled(self) -> ObjectInfo | None:
        """The object, as soon as it is there; None where it does not appear for a while."""
        deadline = time.monotonic() + SETTLE
        while (info := self._if_ours()) is None and time.monotonic() < deadline:
            time.sleep(_SETTLE_PAUSE)
        return info

    def _abort_upload(self) -> None:
        abort_upload(self._bucket, self._key, self._upload["UploadId"])


def abort_upload(bucket: Bucket, key: str, upload_id: str) -> None:
    """Returns when the server knows the upload no more."""
    upload = {**bucket.at(key), "UploadId": upload_id}
    for _unused in range(_ABORTS):
        try:
            with bucket.doing("Aborting the upload of", key):
                bucket.client.abort_multipart_upload(**upload)
                bucket.client.list_parts(**upload, MaxParts=1)
        except VmferryError as error:
            if error.kind == "not_found":
                return
            raise
        time.sleep(_ABORT_PAUSE)
    raise VmferryError(
        "conflict",
        f"The upload of {bucket.url}/{key} keeps coming back although it was aborted.",
        "Another process is still sending parts of it.",
        retryable=True,
    )


def encode_receipt(etag: str, checksum: Mapping[str, str]) -> str:
    """The tag, and the checksum that S3 wants to be told again; what Content-MD5 proved is in the tag."""
    named = [f"{name}={value}" for name, value in checksum.items() if name != "ContentMD5"]
    return " ".join([etag, *named])


def decode_receipt(receipt: str) -> Dict[str, str]:
    etag, *named = receipt.split(" ")
    pairs = (entry.partition("=") for entry in named)
    return {"ETag": etag, **{name: value for name, _unused, value in pairs}}


def without_token(info: ObjectInfo) -> ObjectInfo:
    metadata = {name: value for name, value in info.metadata.items() if name != UPLOAD_TOKEN}
    return ObjectInfo(info.key, info.size, info.etag, info.modified, metadata)
