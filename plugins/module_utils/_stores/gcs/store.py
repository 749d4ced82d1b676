# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports in a bucket of Google Cloud Storage."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, Mapping
from urllib.parse import urlsplit

from ..._blocks import ObjectInfo, PartWriter
from ..._errors import VmferryError
from ..base import Store, StoreCapabilities
from ..bucket_presence import BucketPresence
from ..keys import check_key, check_prefix, is_key, root_prefix
from ..metadata import UPLOAD_TOKEN, checked_metadata
from ..ranges import READ_CHUNK, fill, promised_bytes
from ..server_copy import CopyOrder
from .bucket import Bucket, info_of
from .connection import Connection
from .copy import copy_on_server
from .crc32c import crc32c, decoded
from .errors import translated
from .parts import GcsParts, remove_temporary, uploads_below
from .probe import probe
from .settings import GcsSettings

MAX_OBJECT = 5 * 1024**4  # bytes, also of what is joined: https://cloud.google.com/storage/quotas
MAX_PART = 5 * 1024**3
MAX_PARTS = 32**3  # three levels of joining; the server itself has no limit
_HASH = re.compile(r"crc32c=([A-Za-z0-9+/]{6}==)")


def open_gcs(url: str, settings: Mapping[str, Any], alive: Callable[[], object] = lambda: None) -> GcsStore:
    """`gs://bucket` or `gs://bucket/prefix`."""
    parts = urlsplit(url)
    if not parts.netloc or ":" in parts.netloc:
        raise VmferryError(
            "invalid_config",
            f"The storage URL {url} names no bucket.",
            "Write gs://bucket/prefix, and the address of another server into endpoint_url.",
        )
    folder = root_prefix(parts.path)
    options = GcsSettings.from_options(settings)
    connection = Connection(options, alive)
    return GcsStore(Bucket(connection, parts.netloc, folder, options.storage_class, options.kms_key_name))


class GcsStore(Store):
    def __init__(self, bucket: Bucket) -> None:
        self.url = bucket.url
        self._bucket, self._connection = bucket, bucket.connection
        self._presence = BucketPresence(bucket.name, self._connection.endpoint_url, self._look_at_bucket)

    @property
    def server(self) -> str:
        """Empty for Google: no two of its buckets have one name, whichever of its hosts is asked."""
        endpoint = self._connection.endpoint_url
        return "" if (urlsplit(endpoint).hostname or "").endswith(".googleapis.com") else endpoint

    def probe(self, key: str) -> StoreCapabilities:
        found = probe(self._bucket, check_key(key))
        self._presence.known = True
        return StoreCapabilities(
            max_parts=MAX_PARTS,
            min_part=1,
            max_part=MAX_PART,
            max_object=MAX_OBJECT,
            conditional_put=found.conditional_put,
            verifies_checksums=True,  # what the server computed is compared here, or nothing is written
            conditional_replace=found.conditional_replace,
        )

    def require_root(self) -> None:
        """A bucket has no folders that could be missing in it."""
        self._presence.require()

    def _look_at_bucket(self) -> None:
        """By a listing: who may do that need not see the bucket."""
        next(self._bucket.listed("Opening the bucket of", "", maxResults=1), None)

    def stat(self, key: str) -> ObjectInfo | None:
        found = self._bucket.look(check_key(key))
        if found is None:
            self._presence.require()
            return None
        return info_of(key, found, self._connection.now)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        if not buffer:
            return
        end = offset + len(buffer)
        doing = self._bucket.doing("Reading", check_key(key))
        with translated(doing), self._media(doing, key, {"Range": f"bytes={offset}-{end - 1}"}) as answer:
            url = self.object_url(key)
            promised = promised_bytes(answer.status_code, answer.headers, url, offset, end)
            fill(answer.raw, buffer, promised, url, self._connection.alive)

    def read_whole(self, key: str, limit: int) -> bytes | None:
        """One answer is of one generation of the object, and carries its checksum."""
        doing, found = self._bucket.doing("Reading", check_key(key)), bytearray()
        try:
            with translated(doing), self._media(doing, key, {}) as answer:
                whole = int(answer.headers.get("Content-Length", -1))
                for chunk in self._chunks(answer, limit):
                    found += chunk
        except VmferryError as error:
            if error.kind != "not_found":
                raise
            self._presence.require()
            return None
        if len(found) < min(whole, limit):
            raise _broken_off(doing)
        said = _HASH.search(answer.headers.get("X-Goog-Hash", ""))
        if said and len(found) == whole and decoded(said[1]) != crc32c(memoryview(found)):
            raise VmferryError(
                "checksum_mismatch",
                f"{doing} failed: other bytes arrived than the server has.",
                "Check the network path.",
                retryable=True,
            )
        return bytes(found)

    def _media(self, doing: str, key: str, headers: Mapping[str, str]) -> Any:
        return self._connection.send(
            doing, "GET", "/download" + self._bucket.path_of(key), params={"alt": "media"}, headers=headers
        )

    def _chunks(self, answer: Any, count: int) -> Iterator[bytes]:
        while count > 0:
            chunk = answer.raw.read(min(READ_CHUNK, count), decode_content=False)
            if not chunk:
                return
            self._connection.alive()
            count -= len(chunk)
            yield chunk

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        items = self._bucket.items("Listing", check_prefix(prefix))
        found = [info_of(item["key"], item, self._connection.now) for item in items if is_key(item["key"])]
        yield from sorted(found, key=lambda info: info.key.encode())

    def list_folders(self, prefix: str) -> Iterator[str]:
        start = len(self._bucket.prefix) + len(check_prefix(prefix))
        found = []
        for page in self._bucket.listed("Listing", prefix, delimiter="/"):
            for entry in page.get("prefixes") or []:
                name = entry[start:].rstrip("/")
                if is_key(name):
                    found.append(name)
        yield from sorted(found, key=lambda name: f"{name}/".encode())

    def put(
        self,
        key: str,
        data: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        match = "0" if if_absent else if_match
        found = self._bucket.insert(
            self._bucket.doing("Writing", check_key(key)),
            key,
            memoryview(data),
            condition=None if match is None else {"ifGenerationMatch": match},
            metadata=checked_metadata(metadata),
        )
        return info_of(key, found, self._connection.now)

    @property
    def metadata_last(self) -> bool:
        return True

    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        return GcsParts.create(self._bucket, check_key(key), metadata)

    def resume_parts(
        self, key: str, token: str, known: int, *, metadata: Mapping[str, str] | None = None
    ) -> PartWriter | None:
        return GcsParts.resume(self._bucket, check_key(key), metadata, token, known)

    def copy_within(self, source: Store, order: CopyOrder) -> ObjectInfo | None:
        """The object of `source` that `info` is about, copied to `key` by the server; None where it cannot do that."""
        if not isinstance(source, GcsStore) or source._connection.account != self._connection.account:
            return None
        check_key(order.key)
        return copy_on_server(source._bucket, self._bucket, order)

    def replace_metadata(self, info: ObjectInfo, metadata: Mapping[str, str]) -> ObjectInfo | None:
        """https://cloud.google.com/storage/docs/json_api/v1/objects/patch"""
        described: Dict[str, Any] = {**dict.fromkeys(info.metadata), UPLOAD_TOKEN: None, **checked_metadata(metadata)}
        doing, path = self._bucket.doing("Describing", info.key), self._bucket.path_of(info.key)
        before = self.stat(info.key)
        if before is None or before.etag != info.etag:  # the emulators ignore the condition
            raise VmferryError("conflict", f"{self.object_url(info.key)} has changed since it was looked at.")
        params = {"ifGenerationMatch": info.etag}
        try:
            found = self._connection.json(doing, "PATCH", path, params=params, json={"metadata": described})
        except VmferryError as error:
            if error.kind in ("unsupported", "permission_denied"):  # that it may replace it, is another permission
                return None
            raise
        done = replace(info_of(info.key, found, self._connection.now), modified=before.modified)
        return done if dict(done.metadata) == dict(metadata) else None  # the emulators take no name away

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        params = {}
        if if_match is not None:
            # The emulators ignore the condition on a deletion, so it is looked at here as well.
            if not self._stands(key, if_match):
                return
            params = {"ifGenerationMatch": if_match}
        doing = self._bucket.doing("Deleting", check_key(key))
        try:
            self._connection.json(doing, "DELETE", self._bucket.path_of(key), params=params)
        except VmferryError as error:
            if error.kind != "not_found":
                raise

    def abort_uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool] | None = None) -> int:
        aborted = 0
        for (key, _unused), items in uploads_below(self._bucket, check_prefix(prefix)).items():
            written = max(info_of(key, item, self._connection.now).modified for item in items)
            if chosen is None or chosen(ObjectInfo(key, 0, "", written)):
                self._bucket.each(lambda item: remove_temporary(self._bucket, item), items)
                aborted += 1
        return aborted

    def free_space(self) -> int | None:
        return None

    def close(self) -> None:
        self._connection.close()


def _broken_off(doing: str) -> VmferryError:
    return VmferryError("network", f"{doing} failed: the connection broke.", "Check the network.")
