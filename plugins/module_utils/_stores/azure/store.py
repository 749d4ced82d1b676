# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports in a container of Azure Blob Storage, Azure's own or a compatible server's."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Mapping

from ..._blocks import Extent, ObjectInfo, Part, PartWriter
from ..._errors import VmferryError
from ..base import Store, StoreCapabilities
from ..keys import check_key, check_prefix, is_key
from ..metadata import without_token
from ..server_copy import CopyOrder
from .account import AzureSettings, locate
from .answers import RangeAnswer, WholeAnswer
from .checksums import MD5, Checksum, candidates
from .client import connect
from .container import Container, absent, encode_metadata, is_pages, is_whole, quoted, unchanged
from .copy import copy_on_server, same_account
from .discard import abort_uploads
from .errors import ContainerMissing
from .page_ranges import PAGE, extents_of, page_ranges
from .pages import AzurePages
from .parts import AzureParts
from .probe import probe

# https://learn.microsoft.com/azure/storage/blobs/scalability-targets
MAX_PART = 4000 * 1024**2  # bytes
MAX_PARTS = 50_000
MAX_OBJECT = MAX_PARTS * MAX_PART
PAGED = ".vhd"  # ends the names of what Azure makes a managed disk of, which it does of page blobs only


def open_azure(url: str, settings: Mapping[str, Any], alive: Callable[[], object] = lambda: None) -> AzureStore:
    """`azblob://container/prefix`, or `https://ACCOUNT.blob.core.windows.net/container/prefix`."""
    options = AzureSettings.from_options(settings)
    location = locate(url, options)
    client, session = connect(options, location, alive)
    return AzureStore(
        Container(client, session, location.url, location.prefix, options.secrets, options.access_tier, alive),
        options.blob_type,
    )


class AzureStore(Store):
    def __init__(self, container: Container, blob_type: str = "auto") -> None:
        self.url, self._blob_type = container.url, blob_type
        self._container = container
        self._checksum: Checksum = MD5  # Azure compares it; the probe may find a cheaper one

    @property
    def server(self) -> str:
        """With the account, of which `azblob://` says nothing, and without the SAS."""
        return str(self._container.client.url).partition("?")[0]

    def probe(self, key: str) -> StoreCapabilities:
        found = probe(self._container, _new_key(key), candidates())
        self._checksum = found.checksum
        return StoreCapabilities(
            max_parts=MAX_PARTS,
            min_part=1,
            max_part=MAX_PART,
            max_object=MAX_OBJECT,
            conditional_put=found.conditional_put,
            verifies_checksums=found.verifies_checksums,
            conditional_replace=found.conditional_replace,
        )

    def require_root(self) -> None:
        """A container has no folders that could be missing in it."""
        next(self._pages("", results_per_page=1), None)

    def stat(self, key: str) -> ObjectInfo | None:
        info = self._container.head(check_key(key))
        return None if info is None else without_token(info)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        if not buffer:
            return
        answer = RangeAnswer(f"{self.url}/{check_key(key)}", offset, buffer, self._container.alive)
        with self._container.doing("Reading", key):
            self._container.blob(key).download_blob(offset, len(buffer), answer=answer)

    def extents(self, key: str, size: int) -> Iterator[Extent]:
        """Of a page blob; of another, nobody can tell."""
        found = self._container.properties(check_key(key)) if size else None
        if found is None or not is_pages(found) or int(found.size) < size:
            yield from super().extents(key, size)
            return
        yield from extents_of(page_ranges(self._container, key, int(found.size)), size)

    def read_whole(self, key: str, limit: int) -> bytes | None:
        answer = WholeAnswer(limit, self._container.alive)
        try:
            with self._container.doing("Reading", check_key(key)):
                self._container.blob(key).download_blob(answer=answer)
        except ContainerMissing:
            raise
        except VmferryError as error:
            if error.kind != "not_found":
                raise
            return None
        return bytes(answer.found)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = []
        for page in self._pages(prefix, include=["copy"]):
            for blob in page:
                key = blob.name[len(self._container.prefix) :]
                if is_key(key) and is_whole(blob):
                    found.append(ObjectInfo(key, int(blob.size), quoted(blob.etag), blob.last_modified.timestamp()))
        yield from sorted(found, key=lambda info: info.key.encode())

    def _pages(self, prefix: str, **options: Any) -> Iterator[Any]:
        start = self._container.prefix + check_prefix(prefix)
        items = self._container.client.list_blobs(name_starts_with=start, **options)
        return self._container.pages("Listing", "", items)

    def list_folders(self, prefix: str) -> Iterator[str]:
        from azure.storage.blob import BlobPrefix

        start = self._container.prefix + check_prefix(prefix)
        found = []
        for page in self._container.pages(
            "Listing", "", self._container.client.walk_blobs(name_starts_with=start, delimiter="/")
        ):
            for entry in page:
                name = entry.name[len(start) :].rstrip("/")
                if isinstance(entry, BlobPrefix) and is_key(name):
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
        condition = absent() if if_absent else unchanged(if_match) if if_match is not None else {}
        if self._as_pages(key, len(data)):
            return self._put_pages(key, data, metadata, condition)
        encoded = encode_metadata(metadata)
        made = self._put(key, data, metadata=encoded, **condition, **self._container.creating)
        modified = made["last_modified"].timestamp()
        return ObjectInfo(key, len(data), quoted(made["etag"]), modified, dict(metadata or {}))

    def _put(self, key: str, data: bytes, **options: Any) -> Dict[str, Any]:
        digest = self._checksum.of(memoryview(data))
        with self._container.doing("Writing", _new_key(key), checked=True):
            made: Dict[str, Any] = self._container.blob(key).upload_blob(
                data, length=len(data), overwrite=True, headers=self._checksum.headers(digest), **options
            )
        return made

    def _as_pages(self, key: str, size: int | None = None) -> bool:
        """`size`: where it is known. What is said of a disk beside it has any."""
        if self._blob_type == "page":
            return size is None or (size > 0 and size % PAGE == 0)
        return self._blob_type == "auto" and key.lower().endswith(PAGED)

    def _put_pages(
        self, key: str, data: bytes, metadata: Mapping[str, str] | None, condition: Dict[str, Any]
    ) -> ObjectInfo:
        pages = AzurePages.create(self._container, _new_key(key), self._checksum, metadata)
        try:
            if data:
                pages.write_part(Part(1, 0, len(data)), memoryview(data))
            return pages.finish(len(data), **condition)
        except BaseException:
            pages.abort()
            raise

    def put_volatile(self, key: str, data: bytes) -> None:
        """As durable as the rest, but never in a tier that charges for what is removed soon."""
        self._put(key, data)

    @property
    def metadata_last(self) -> bool:
        return True

    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        writer = AzurePages if self._as_pages(key) else AzureParts
        return writer.create(self._container, _new_key(key), self._checksum, metadata)

    def resume_parts(
        self, key: str, token: str, known: int, *, metadata: Mapping[str, str] | None = None
    ) -> PartWriter | None:
        writer = AzurePages if self._as_pages(key) else AzureParts
        return writer.resume(self._container, check_key(key), self._checksum, metadata, token, known)

    def copy_within(self, source: Store, order: CopyOrder) -> ObjectInfo | None:
        if not isinstance(source, AzureStore) or not same_account(source._container, self._container):
            return None
        pages = self._as_pages(_new_key(order.key))
        return copy_on_server(source._container, self._container, order, checksum=self._checksum, pages=pages)

    def replace_metadata(self, info: ObjectInfo, metadata: Mapping[str, str]) -> ObjectInfo | None:
        with self._container.doing("Describing", check_key(info.key)):
            self._container.blob(info.key).set_blob_metadata(encode_metadata(metadata), **unchanged(info.etag))
        return self.stat(info.key)

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        self._container.remove(check_key(key), unchanged(if_match) if if_match is not None else {})

    def abort_uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool] | None = None) -> int:
        return abort_uploads(self._container, check_prefix(prefix), chosen)

    def free_space(self) -> int | None:
        return None

    def close(self) -> None:
        self._container.client.close()


def _new_key(key: str) -> str:
    """Azure takes a dot at the end of a segment away, and the object would then have another name."""
    if any(segment.endswith(".") for segment in check_key(key).split("/")):
        raise VmferryError(
            "invalid_config",
            f"The storage key {key!a} has a segment that ends with a dot, which Azure does not keep.",
            "Choose another name.",
        )
    return key
