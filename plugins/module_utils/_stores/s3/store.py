# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports in an S3 bucket, AWS's own or a compatible server's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, Mapping, Optional
from urllib.parse import unquote, urlsplit

from ..._blocks import ObjectInfo, PartWriter
from ..._errors import VmferryError
from ..base import Store, StoreCapabilities
from ..bucket_presence import BucketPresence
from ..keys import check_key, check_prefix, is_key, root_prefix
from ..memory_body import MemoryBody
from ..metadata import percent_encoded, without_token
from ..ranges import READ_CHUNK, fill, promised_bytes
from ..server_copy import CopyOrder
from .abort import abort_upload
from .bucket import Bucket
from .checksums import Checksum, candidates
from .client import connect
from .copy import copy_on_server, same_server
from .lock import ObjectLock
from .parts import S3Parts
from .probe import probe
from .settings import S3Settings

MIN_PART = 5 * 1024**2  # bytes, all four: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MAX_PART = 5 * 1024**3
MAX_OBJECT = 5 * 1024**4  # what every server takes; AWS itself takes more since 2025
MAX_PARTS = 10_000


_NO_LOCK = ObjectLock()
_AWS = (".amazonaws.com", ".amazonaws.com.cn")


def open_s3(url: str, settings: Mapping[str, Any], alive: Callable[[], object] = lambda: None) -> S3Store:
    """`s3://bucket`, `s3://bucket/prefix`, or `https://endpoint/bucket/prefix`, whose endpoint is the one asked."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        bucket, _slash, rest = parts.path.lstrip("/").partition("/")
        settings = {**settings, "endpoint_url": f"{parts.scheme}://{parts.netloc}"}
        parts = parts._replace(netloc=unquote(bucket), path=rest)
    if not parts.netloc or ":" in parts.netloc:
        raise VmferryError(
            "invalid_config",
            f"The storage URL {url} names no bucket.",
            "Write s3://bucket/prefix, and the server's address into endpoint_url.",
        )
    folder = root_prefix(parts.path)
    options = S3Settings.from_options(settings)
    encryption = options.encryption()
    lock = ObjectLock(
        options.object_lock_mode, options.retain_until, options.object_lock_retention, options.object_lock_legal_hold
    )
    found = Bucket(connect(options), parts.netloc, folder, encryption, options.secrets, alive, options.storage_class)
    return S3Store(found, lock)


class S3Store(Store):
    def __init__(self, bucket: Bucket, lock: ObjectLock = _NO_LOCK) -> None:
        self.url, self._lock = bucket.url, lock
        self._bucket, self._client = bucket, bucket.client
        self._checksum: Optional[Checksum] = candidates()[0]
        self._presence = BucketPresence(bucket.name, self._client.meta.endpoint_url, self._look_at_bucket)

    @property
    def server(self) -> str:
        """Empty for AWS: no two of its buckets have one name, whichever of its hosts is asked."""
        endpoint: str = self._client.meta.endpoint_url
        return "" if (urlsplit(endpoint).hostname or "").endswith(_AWS) else endpoint

    def probe(self, key: str) -> StoreCapabilities:
        if self._lock.wanted:
            self._lock.require(self._bucket)
            self._lock.prove(self._bucket, check_key(key))
        found = probe(self._bucket, check_key(key), candidates())
        self._checksum, self._presence.known = found.checksum, True
        return StoreCapabilities(
            max_parts=MAX_PARTS,
            min_part=MIN_PART,
            max_part=MAX_PART,
            max_object=MAX_OBJECT,
            conditional_put=found.conditional_put,
            verifies_checksums=found.verifies_checksums,
            conditional_replace=found.conditional_replace,
            joins_pieces=found.joins_pieces,
        )

    def require_root(self) -> None:
        """A bucket has no folders that could be missing in it."""
        self._presence.require()

    def stat(self, key: str) -> ObjectInfo | None:
        info = self._bucket.head(check_key(key))
        if info is None:
            self._presence.require()
            return None
        return without_token(info)

    def _look_at_bucket(self) -> None:
        with self._bucket.doing("Opening the bucket of", ""):
            self._client.head_bucket(Bucket=self._bucket.name)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        if not buffer:
            return
        end = offset + len(buffer)
        with self._bucket.reading("Reading", check_key(key)):
            answer = self._client.get_object(
                **self._bucket.at(key), Range=f"bytes={offset}-{end - 1}", **self._bucket.encryption.using()
            )
            body, url = answer["Body"], self.object_url(key)
            try:
                status, headers = answer["ResponseMetadata"]["HTTPStatusCode"], _range_headers(answer)
                promised = promised_bytes(status, headers, url, offset, end)
                fill(getattr(body, "_raw_stream", body), buffer, promised, url, self._bucket.alive)
            finally:
                # A connection that still has bytes of an answer in it cannot be used again.
                body.close()

    def read_whole(self, key: str, limit: int) -> bytes | None:
        try:
            with self._bucket.reading("Reading", check_key(key)):
                answer = self._client.get_object(**self._bucket.at(key), **self._bucket.encryption.using())
                body, found = answer["Body"], bytearray()
                try:
                    while chunk := body.read(min(READ_CHUNK, limit - len(found))):
                        found += chunk
                        self._bucket.alive()
                finally:
                    body.close()
        except VmferryError as error:
            if error.kind != "not_found":
                raise
            self._presence.require()
            return None
        return bytes(found)

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
        return self._bucket.pages(operation, "Listing", "", Bucket=self._bucket.name, **arguments)

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
        answer = self._put(key, data, condition, percent_encoded(metadata))
        info = self.stat(key)
        if info is None:
            raise VmferryError("conflict", f"{self.object_url(key)} was removed while it was written.")
        # Of what was written here: what is there by now may be another's.
        return replace(info, etag=answer.get("ETag", info.etag))

    def _put(
        self, key: str, data: bytes, condition: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Mapping[str, Any]:
        view = memoryview(data)
        with self._bucket.doing("Writing", check_key(key)):
            answer: Mapping[str, Any] = self._client.put_object(
                **self._bucket.at(key),
                Body=MemoryBody(view, self._bucket.alive),
                ContentLength=len(data),
                Metadata=metadata,
                **(self._checksum.of(view) if self._checksum else {}),
                **condition,
                **self._bucket.encryption.creating(),
            )
        return answer

    def put_volatile(self, key: str, data: bytes) -> None:
        """As durable as the rest; but nobody asks for the time at which it was written."""
        self._put(key, data, {}, {})

    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        self._lock.check()
        return S3Parts.create(self._bucket, check_key(key), self._checksum, metadata)

    def resume_parts(
        self, key: str, token: str, known: int, *, metadata: Mapping[str, str] | None = None
    ) -> PartWriter | None:
        return S3Parts.resume(self._bucket, check_key(key), self._checksum, metadata, token, known)

    def lock(self, key: str) -> None:
        if self._lock.wanted:
            self._lock.put(self._bucket, check_key(key))

    def copy_within(self, source: Store, order: CopyOrder) -> ObjectInfo | None:
        if not isinstance(source, S3Store) or not same_server(source._bucket, self._bucket):
            return None
        check_key(order.key)
        return copy_on_server(source._bucket, self._bucket, order)

    def replace_metadata(self, info: ObjectInfo, metadata: Mapping[str, str]) -> ObjectInfo | None:
        """By a copy onto itself: S3 knows no other way. A customer's key would have to be told for both ends."""
        if self._bucket.encryption.customer_key:
            return None
        return self.copy_within(self, CopyOrder(info, info.key, metadata))

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        condition = {}
        if if_match is not None:
            # Most servers ignore the condition on a deletion, so it is looked at here as well.
            if not self._stands(key, if_match):
                return
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


def _range_headers(answer: Mapping[str, Any]) -> Mapping[str, str]:
    return {"Content-Length": str(answer["ContentLength"]), "Content-Range": answer.get("ContentRange", "")}
