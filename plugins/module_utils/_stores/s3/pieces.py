# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A part that is larger than memory has room for: an object of its own, that the server copies into place.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Lock
from typing import Any, Callable, Dict, Iterator, Mapping

from ..._blocks import Part, PartReceipt, PartWriter
from ..._errors import VmferryError
from ..keys import PIECES
from .abort import abort_upload
from .bucket import Bucket


class Pieces:
    """Of all parts of one upload that are under way."""

    def __init__(
        self, bucket: Bucket, key: str, upload: Mapping[str, Any], begin: Callable[[Bucket, str], PartWriter]
    ) -> None:
        # Classes that are cheap to keep bill a month for what is removed within minutes.
        self._bucket, self._key, self._upload = replace(bucket, storage_class=""), key, upload
        self._begin = begin
        self._open: Dict[int, PartWriter] = {}
        self._receipts: Dict[int, Dict[int, PartReceipt]] = {}
        self._copied: Dict[int, Mapping[str, Any]] = {}
        self._beginning = Lock()

    def write(self, part: Part, number: int, data: memoryview) -> None:
        piece = Part(number, 0, len(data))
        receipt = PartReceipt(piece, b"", self._of(part).write_part(piece, data))
        self._receipts[part.number][number] = receipt

    def join(self, part: Part) -> Mapping[str, Any]:
        """The server's answer, which has the part's tag and checksum."""
        copied = self._copied.get(part.number)
        if copied is None:
            whole, receipts = self._of(part), self._receipts[part.number]
            whole.complete([receipts[number] for number in sorted(receipts)], part.size)
            copied = self._copied[part.number] = self._copy(part.number)
        self._remove(part.number)  # may be all that is left to do of an attempt that is repeated
        return copied

    def _copy(self, number: int) -> Mapping[str, Any]:
        with self._bucket.doing(f"Copying part {number} of", self._key):
            answer = self._bucket.client.upload_part_copy(
                **self._upload,
                PartNumber=number,
                CopySource=self._bucket.at(self._key_of(number)),
                **self._bucket.encryption.using(),
                **self._bucket.encryption.copying(),
            )
        result: Mapping[str, Any] = answer["CopyPartResult"]
        return result

    def abort(self) -> None:
        for number, whole in list(self._open.items()):
            whole.abort()
            self._remove(number)

    def sweep(self) -> None:
        """What an earlier process left of them."""
        where = {"Bucket": self._bucket.name, "Prefix": f"{self._bucket.prefix}{self._key}{PIECES}"}
        with _suppress_denied():
            for page in self._bucket.pages("list_multipart_uploads", "Listing", self._key, **where):
                for entry in page.get("Uploads", []):
                    if entry["Key"].startswith(where["Prefix"]):  # some servers do not filter
                        abort_upload(self._bucket, entry["Key"][len(self._bucket.prefix) :], entry["UploadId"])
        for page in self._bucket.pages("list_objects_v2", "Listing", self._key, **where):
            for entry in page.get("Contents", []):
                with self._bucket.doing("Deleting a piece of", self._key):
                    self._bucket.client.delete_object(Bucket=self._bucket.name, Key=entry["Key"])

    def _of(self, part: Part) -> PartWriter:
        with self._beginning:
            if part.number not in self._open:
                self._open[part.number] = self._begin(self._bucket, self._key_of(part.number))
                self._receipts[part.number] = {}
            return self._open[part.number]

    def _key_of(self, number: int) -> str:
        return f"{self._key}{PIECES}{number:05d}"

    def _remove(self, number: int) -> None:
        with self._bucket.doing("Deleting a piece of", self._key):
            self._bucket.client.delete_object(**self._bucket.at(self._key_of(number)))
        with suppress(KeyError):
            del self._open[number], self._receipts[number]


@contextmanager
def _suppress_denied() -> Iterator[None]:
    """Exports need no right to list uploads: without it they are left to whoever has it."""
    try:
        yield
    except VmferryError as error:
        if error.kind != "permission_denied":
            raise


def joins_pieces(bucket: Bucket, key: str, announced: Mapping[str, str]) -> bool:
    """Whether the server copies the object at `key` into a part of an upload, tried there."""
    with bucket.doing("Writing", key):
        begun = bucket.client.create_multipart_upload(**bucket.at(key), **announced, **bucket.encryption.creating())
    try:
        with bucket.doing("Copying", key):
            answer = bucket.client.upload_part_copy(
                **bucket.at(key),
                UploadId=begun["UploadId"],
                PartNumber=1,
                CopySource=bucket.at(key),
                **bucket.encryption.using(),
                **bucket.encryption.copying(),
            )
        return bool(answer.get("CopyPartResult", {}).get("ETag"))
    except VmferryError as error:
        if error.retryable:
            raise
        return False
    finally:
        abort_upload(bucket, key, begun["UploadId"])
