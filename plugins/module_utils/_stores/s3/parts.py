# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A multipart upload: the object exists only once it is complete, so half an image is never seen."""

from __future__ import annotations

import secrets
from typing import Any, Dict, Mapping, Sequence, Set, Tuple

from ..._blocks import ObjectInfo, Part, PartReceipt
from ..._errors import VmferryError
from ..completion import Completion
from ..memory_body import MemoryBody
from ..metadata import UPLOAD_TOKEN, made_by, percent_encoded
from ..numbered_parts import NumberedParts, lies_in, require_size
from .abort import abort_upload
from .bucket import Bucket
from .checksums import Checksum
from .pieces import Pieces

_COPIED = "copied"  # in a token, where the name of the checksum stands else


class S3Parts(NumberedParts):
    def __init__(
        self,
        bucket: Bucket,
        key: str,
        checksum: Checksum | None,
        metadata: Mapping[str, str] | None,
        mark: str,
        upload_id: str,
    ) -> None:
        """`mark`: a word of this upload alone, by which its object is known."""
        super().__init__(f"{bucket.url}/{key}")
        self._bucket, self._key, self._checksum, self._mark = bucket, key, checksum, mark
        self._metadata = _marked(metadata, mark)
        self._completion = Completion(self._if_ours, over="not_found")
        self._received: Set[Tuple[int, int, str]] = set()  # number, size and tag: a part sent twice may be there twice
        self._upload: Dict[str, Any] = {**bucket.at(key), "UploadId": upload_id}
        self._proof = _name_of(checksum)
        self._pieces = Pieces(bucket, key, self._upload, lambda at, piece: S3Parts.create(at, piece, checksum, None))

    @classmethod
    def create(cls, bucket: Bucket, key: str, checksum: Checksum | None, metadata: Mapping[str, str] | None) -> S3Parts:
        mark = secrets.token_hex(16)
        with bucket.doing("Writing", key):
            answer = bucket.client.create_multipart_upload(
                **bucket.at(key),
                Metadata=_marked(metadata, mark),
                **(checksum.announced if checksum else {}),
                **bucket.uploading(),
            )
        return cls(bucket, key, checksum, metadata, mark, answer["UploadId"])

    @classmethod
    def to_copy(cls, bucket: Bucket, key: str, metadata: Mapping[str, str] | None) -> S3Parts:
        """One that the server itself fills, which announces no checksum of its parts."""
        parts = cls.create(bucket, key, None, metadata)
        parts._proof = _COPIED
        return parts

    @classmethod
    def resume(
        cls,
        bucket: Bucket,
        key: str,
        checksum: Checksum | None,
        metadata: Mapping[str, str] | None,
        token: str,
        known: int,
    ) -> S3Parts | None:
        """None also where the checksum that the upload was announced with is no longer what the server verifies, and
        where it was completed and has more than the `known` bytes: no part can be added to it.
        """
        fields = token.split(":", 2)
        if len(fields) != 3 or not fields[2] or fields[1] not in (_name_of(checksum), _COPIED):
            return None
        parts = cls(bucket, key, None if fields[1] == _COPIED else checksum, metadata, fields[0], fields[2])
        parts._proof = fields[1]
        if not parts._find(known):
            return None
        parts._pieces.sweep()
        return parts

    @property
    def token(self) -> str:
        return f"{self._mark}:{self._proof}:{self._upload['UploadId']}"

    def _find(self, known: int) -> bool:
        try:
            for page in self._bucket.pages("list_parts", "Listing the parts of", self._key, **self._upload):
                for part in page.get("Parts", []):
                    self._received.add((int(part["PartNumber"]), int(part["Size"]), part["ETag"].strip('"')))
        except VmferryError as error:
            if error.kind != "not_found":
                raise
            self._done = self._if_ours()
            return self._done is not None and self._done.size <= known
        return True

    def confirms(self, receipt: PartReceipt) -> bool:
        if self._done is not None:
            return lies_in(receipt, self._done)
        tag = decode_receipt(receipt.etag)["ETag"].strip('"')
        return (receipt.part.number, receipt.part.size, tag) in self._received

    def write_part(self, part: Part, data: memoryview) -> str:
        self._require_incomplete(self._done)
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

    def write_piece(self, part: Part, number: int, data: memoryview) -> None:
        self._pieces.write(part, number, data)

    def join_pieces(self, part: Part) -> str:
        answer = self._pieces.join(part)
        parameter = self._checksum.parameter if self._checksum else ""
        return encode_receipt(answer["ETag"], {parameter: answer[parameter]} if parameter in answer else {})

    def copy_part(self, part: Part, origin: Mapping[str, Any]) -> str:
        """`origin`: where the server itself takes it from. Returns the receipt."""
        with self._bucket.doing(f"Copying part {part.number} of", self._key):
            answer = self._bucket.client.upload_part_copy(**self._upload, PartNumber=part.number, **origin)
        return encode_receipt(answer["CopyPartResult"]["ETag"], {})

    def _complete(self, receipts: Sequence[PartReceipt], size: int, if_absent: bool) -> ObjectInfo:
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        found = self._completion.carry_out(
            lambda: self._join(receipts, condition) if receipts else self._put_empty(condition),
            lambda info: info.size == size,
        )
        return require_size(self._url, found, size)

    def _join(self, receipts: Sequence[PartReceipt], condition: Mapping[str, str]) -> None:
        parts = [{"PartNumber": receipt.part.number, **decode_receipt(receipt.etag)} for receipt in receipts]
        with self._bucket.doing("Completing", self._key):
            self._bucket.client.complete_multipart_upload(
                **self._upload, MultipartUpload={"Parts": parts}, **condition, **self._bucket.encryption.using()
            )

    def _put_empty(self, condition: Mapping[str, str]) -> None:
        """No upload can be made of no parts."""
        self._abort_upload()
        with self._bucket.doing("Writing", self._key):
            self._bucket.client.put_object(
                **self._bucket.at(self._key), Body=b"", Metadata=self._metadata, **condition, **self._bucket.uploading()
            )

    def _if_ours(self) -> ObjectInfo | None:
        return made_by(self._mark, self._bucket.head(self._key))

    def abort(self) -> None:
        if self._done is not None:
            return
        self._pieces.abort()
        self._abort_upload()
        if not self._completion.begun:
            return
        if (self._completion.settled() if self._completion.unanswered else self._if_ours()) is not None:
            with self._bucket.doing("Removing", self._key):
                self._bucket.client.delete_object(**self._bucket.at(self._key))
        elif self._completion.unanswered:
            raise VmferryError(
                "timeout",
                f"{self._url} may still appear: the server never answered its completion.",
                retryable=False,
            )

    def _abort_upload(self) -> None:
        abort_upload(self._bucket, self._key, self._upload["UploadId"])


def _marked(metadata: Mapping[str, str] | None, mark: str) -> Dict[str, str]:
    return {**percent_encoded(metadata), UPLOAD_TOKEN: mark}


def _name_of(checksum: Checksum | None) -> str:
    return (checksum.algorithm or checksum.parameter) if checksum else "none"


def encode_receipt(etag: str, checksum: Mapping[str, str]) -> str:
    """The tag, and the checksum that S3 wants to be told again; what Content-MD5 proved is in the tag."""
    named = [f"{name}={value}" for name, value in checksum.items() if name != "ContentMD5"]
    return " ".join([etag, *named])


def decode_receipt(receipt: str) -> Dict[str, str]:
    etag, *named = receipt.split(" ")
    pairs = (entry.partition("=") for entry in named)
    return {"ETag": etag, **{name: value for name, _unused, value in pairs}}
