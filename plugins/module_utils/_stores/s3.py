# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports in an S3 bucket, AWS's own or a compatible server's."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, Mapping, Optional
from urllib.parse import unquote, urlsplit

from .._blocks import ObjectInfo, PartWriter
from .._errors import VmferryError
from .base import Store, StoreCapabilities
from .keys import check_key, check_prefix, is_key
from .s3_body import MemoryBody
from .s3_bucket import Bucket, encode_metadata
from .s3_checksums import Checksum, candidates
from .s3_client import S3Settings, connect
from .s3_parts import S3Parts, abort_upload, without_token
from .s3_probe import probe

MIN_PART = 5 * 1024**2  # bytes, all four: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MAX_PART = 5 * 1024**3
MAX_OBJECT = 5 * 1024**4  # what every server takes; AWS itself takes more since 2025
MAX_PARTS = 10_000
_RANGE = re.compile(r"bytes (\d+)-(\d+)/")
READ_CHUNK = 1024 * 1024  # bytes; urllib3 makes a copy of this size on the way into the buffer


def open_s3(url: str, settings: Mapping[str, Any], alive: Callable[[], object] = lambda: None) -> S3Store:
    """`s3://bucket` or `s3://bucket/prefix`."""
    parts = urlsplit(url)
    prefix = unquote(parts.path).strip("/")
    if not parts.netloc or ":" in parts.netloc:
        raise VmferryError(
            "invalid_config",
            f"The storage URL {url} names no bucket.",
            "Write s3://bucket/prefix, and the server's address into endpoint_url.",
        )
    if prefix:
        check_key(prefix)
    options = S3Settings.from_options(settings)
    encryption = options.encryption()
    folder = f"{prefix}/" if prefix else ""
    return S3Store(Bucket(connect(options), parts.netloc, folder, encryption, options.secrets, alive))


class S3Store(Store):
    def __init__(self, bucket: Bucket) -> None:
        self.url = bucket.url
        self._bucket, self._client = bucket, bucket.client
        self._checksum: Optional[Checksum] = candidates()[0]
        self._bucket_exists = False

    def probe(self, key: str) -> StoreCapabilities:
        found = probe(self._bucket, check_key(key), candidates())
        self._checksum, self._bucket_exists = found.checksum, True
        return StoreCapabilities(
            max_parts=MAX_PARTS,
            min_part=MIN_PART,
            max_part=MAX_PART,
            max_object=MAX_OBJECT,
            conditional_put=found.conditional_put,
            verifies_checksums=found.verifies_checksums,
            conditional_replace=found.conditional_replace,
        )

    def require_root(self) -> None:
        """A bucket has no folders that could be missing in it."""
        self._require_bucket()

    def stat(self, key: str) -> ObjectInfo | None:
        info = self._bucket.head(check_key(key))
        if info is None:
            self._require_bucket()
            return None
        return without_token(info)

    def _require_bucket(self) -> None:
        """The answer to HEAD has no body, so a missing bucket looks like a missing object there."""
        if self._bucket_exists:
            return
        try:
            with self._bucket.doing("Opening the bucket of", ""):
                self._client.head_bucket(Bucket=self._bucket.name)
        except VmferryError as error:
            if error.kind == "not_found":
                raise VmferryError(
                    "not_found",
                    f"The bucket {self._bucket.name} does not exist at {self._client.meta.endpoint_url}.",
                    "Create the bucket, or correct the storage URL.",
                ) from error
            if error.kind != "permission_denied":  # without s3:ListBucket nobody can tell
                raise
        self._bucket_exists = True

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        if not buffer:
            return
        end = offset + len(buffer)
        with self._bucket.reading("Reading", check_key(key)):
            answer = self._client.get_object(
                **self._bucket.at(key), Range=f"bytes={offset}-{end - 1}", **self._bucket.encryption.using()
            )
            body = answer["Body"]
            try:
                if not _is_of_range(answer, offset, end):
                    raise VmferryError(
                        "unsupported",
                        f"Asked for bytes {offset} to {end} of {self.object_url(key)}, the server gave others.",
                        "The server, or a proxy before it, does not serve ranges of an object.",
                    )
                filled = _fill(body, buffer, self._bucket.alive)
                complete = filled == len(buffer)
            finally:
                # A connection that still has bytes of an answer in it cannot be used again.
                body.close()
        if not complete:
            raise VmferryError(
                "checksum_mismatch",
                f"{self.object_url(key)} has {offset + filled} bytes; at least {end} were expected.",
            )

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        # Sorted here: servers that keep folders list them in the order of the folders' names.
        found = []
        for page in self._pages("list_objects_v2", Prefix=self._bucket.prefix + check_prefix(prefix)):
            for entry in page.get("Contents", []):
                key = entry["Key"][len(self._bucket.prefix) :]
                if is_key(key):
                    modified = entry["LastModified"].timestamp()
                    found.append(ObjectInfo(key, int(entry["Size"]), entry.get("ETag", ""), modified))
        yield from sorted(found, key=lambda info: info.key.encode())

    def list_folders(self, prefix: str) -> Iterator[str]:
        start = len(self._bucket.prefix) + len(check_prefix(prefix))
        found = []
        for page in self._pages("list_objects_v2", Prefix=self._bucket.prefix + prefix, Delimiter="/"):
            for entry in page.get("CommonPrefixes", []):
                name = entry["Prefix"][start:].rstrip("/")
                if is_key(name):
                    found.append(name)
        yield from sorted(found, key=lambda name: f"{name}/".encode())

    def _pages(self, operation: str, **arguments: Any) -> Iterator[Dict[str, Any]]:
        pages = iter(self._client.get_paginator(operation).paginate(Bucket=self._bucket.name, **arguments))
        while True:
            with self._bucket.doing("Listing", ""):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def put(
        self,
        key: str,
        data: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        condition = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_match} if if_match is not None else {}
        view = memoryview(data)
        with self._bucket.doing("Writing", check_key(key)):
            answer = self._client.put_object(
                **self._bucket.at(key),
                Body=MemoryBody(view, self._bucket.alive),
                ContentLength=len(data),
                Metadata=encode_metadata(metadata),
                **(self._checksum.of(view) if self._checksum else {}),
                **condition,
                **self._bucket.encryption.creating(),
            )
        info = self.stat(key)
        if info is None:
            raise VmferryError("conflict", f"{self.object_url(key)} was removed while it was written.")
        # Of what was written here: what is there by now may be another's.
        return replace(info, etag=answer.get("ETag", info.etag))

    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        return S3Parts(self._bucket, check_key(key), self._checksum, metadata)

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        condition = {}
        if if_match is not None:
            # Most servers ignore the condition on a deletion, so it is looked at here as well.
            info = self.stat(key)
            if info is None:
                return
            if info.etag != if_match:
                raise VmferryError("conflict", f"{self.object_url(key)} has changed since it was read.")
            condition = {"IfMatch": if_match}
        with self._bucket.doing("Deleting", check_key(key)):
            self._client.delete_object(**self._bucket.at(key), **condition)

    def abort_uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool] | None = None) -> int:
        aborted = 0
        full = self._bucket.prefix + check_prefix(prefix)
        for page in self._pages("list_multipart_uploads", Prefix=full):
            for entry in page.get("Uploads", []):
                if not entry["Key"].startswith(full):  # some servers do not filter
                    continue
                info = ObjectInfo(entry["Key"][len(self._bucket.prefix) :], 0, "", entry["Initiated"].timestamp())
                if chosen is None or chosen(info):
                    abort_upload(self._bucket, info.key, entry["UploadId"])
                    aborted += 1
        return aborted

    def free_space(self) -> int | None:
        return None

    def close(self) -> None:
        self._client.close()


def _is_of_range(answer: Mapping[str, Any], offset: int, end: int) -> bool:
    """An answer that ends early is of the range, too: the object is shorter than was thought."""
    if answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
        return offset == 0 and int(answer["ContentLength"]) == end
    found = _RANGE.match(answer.get("ContentRange", ""))
    return found is not None and int(found[1]) == offset and int(found[2]) < end


def _fill(body: Any, buffer: memoryview, alive: Callable[[], object]) -> int:
    filled = 0
    while filled < len(buffer):
        chunk = body.read(min(READ_CHUNK, len(buffer) - filled))
        if not chunk:
            break
        buffer[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
        alive()
    return filled
