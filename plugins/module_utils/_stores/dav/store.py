# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports on an HTTP server: read from any that gives ranges, written to one that speaks WebDAV."""

from __future__ import annotations

import secrets
from contextlib import suppress
from hashlib import sha256
from typing import Any, Callable, Iterator, Mapping, Sequence, Tuple
from urllib.parse import urlsplit

from ..._blocks import ObjectInfo, PartWriter, StreamWriter
from ..._errors import VmferryError
from ..._http.clear_text import refuse_in_clear
from ..base import Store, StoreCapabilities
from ..keys import PARTIAL, UPLOAD, check_key, check_prefix, is_key, root_prefix
from ..ranges import fill, promised_bytes
from ..server_copy import CopyOrder
from .client import Body, DavClient, origin_of
from .copy import copy_on_server
from .folder import DavFolder
from .headers import CHECKSUM_NAME, described, is_same, weak_etag
from .listing import Resource
from .parts import DavParts
from .probe import probe
from .settings import DavSettings
from .stream import DavStream

MAX_PARTS = 10_000
MAX_PART = 1024**3  # bytes; what more is in one file a network would have to carry without a break
MAX_OBJECT = (1 << 63) - 1  # the server alone knows how much it takes
_LOOKS = 8  # at an object that is replaced meanwhile


def open_dav(url: str, settings: Mapping[str, Any], alive: Callable[[], object] = lambda: None) -> DavStore:
    """`http://host/path` or `https://host/path`, with or without a port."""
    parts = urlsplit(url)
    try:
        origin = origin_of(url)
    except ValueError as error:
        raise VmferryError(
            "invalid_config", f"The storage URL {url} has a port that is none.", "Correct the URL."
        ) from error
    if not parts.hostname:
        raise VmferryError(
            "invalid_config", f"The storage URL {url} names no host.", "Write https://host/path/of/the/exports."
        )
    prefix = root_prefix(parts.path).rstrip("/")
    options = DavSettings.from_options(settings)
    if options.secrets:
        refuse_in_clear(url, "The token, the password or the headers of the storage options")
    return DavStore(DavFolder(DavClient(origin, options, alive), prefix))


class DavStore(Store):
    def __init__(self, folder: DavFolder) -> None:
        self.url, self._folder = folder.url, folder

    def probe(self, key: str) -> StoreCapabilities:
        found = probe(self._folder, check_key(key))
        return StoreCapabilities(
            max_parts=MAX_PARTS,
            min_part=1,
            max_part=MAX_PART,
            max_object=MAX_OBJECT,
            conditional_put=found.conditional_put,
            verifies_checksums=found.verifies_checksums,
            conditional_replace=found.conditional_replace,
            joins_parts=True,
        )

    def require_root(self) -> None:
        self._folder.require()

    def stat(self, key: str) -> ObjectInfo | None:
        info = self._folder.find(check_key(key))
        if info is None:
            self._folder.require_above()
        return info

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        check_key(key)
        if not buffer:
            return
        end = offset + len(buffer)
        with self._folder.reading(key, {"Range": f"bytes={offset}-{end - 1}"}) as answer:
            url = self.object_url(key)
            promised = promised_bytes(answer.status, answer.headers, url, offset, end)
            fill(answer, buffer, promised, url, self._folder.client.alive)

    def read_whole(self, key: str, limit: int) -> bytes | None:
        """Looked at once more afterwards: while an object is replaced, some servers give the beginning of the new one
        with the length of the old one.
        """
        check_key(key)
        for _unused in range(_LOOKS):
            found, now = self._folder.read(key, limit), self._folder.find(key)
            if found is None and now is None:
                self._folder.require_above()
                return None
            if found is not None and now is not None and (found[1].etag, found[1].size) == (now.etag, now.size):
                self._require_as_said(*found)
                return found[0]
        raise VmferryError(
            "busy", f"{self.object_url(key)} is replaced again and again while it is read.", "Try again later."
        )

    def _require_as_said(self, data: bytes, said: ObjectInfo) -> None:
        """By the checksum that the server kept, if it did, and all of the object was read."""
        expected = said.metadata.get(CHECKSUM_NAME)
        if expected and len(data) == said.size and sha256(data).hexdigest() != expected:
            raise VmferryError(
                "checksum_mismatch",
                f"{self.object_url(said.key)} is not what its checksum on the server says.",
                "Check the server's disk and the network path.",
            )

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = [
            ObjectInfo(key, each.size, each.etag or weak_etag(each.modified, each.size), each.modified)
            for key, each in self._walk(check_prefix(prefix), hidden=False)
        ]
        yield from sorted(found, key=lambda info: info.key.encode())

    def list_folders(self, prefix: str) -> Iterator[str]:
        """Also those that were emptied: a server keeps them."""
        entries = self._entries(check_prefix(prefix).rpartition("/")[0])
        names = [name for name, each in entries if each.is_folder and is_key(name)]
        yield from sorted(names, key=lambda name: f"{name}/".encode())

    def _entries(self, folder: str) -> Sequence[Tuple[str, Resource]]:
        found = self._folder.entries(folder)
        if found is None:
            self._folder.require_above()
        return found or []

    def _walk(self, prefix: str, hidden: bool, folder: str = "") -> Iterator[Tuple[str, Resource]]:
        """Files below `prefix`, or what is `hidden`: files and folders of uploads."""
        folder = folder or prefix.rpartition("/")[0]
        for name, each in self._entries(folder):
            key = f"{folder}/{name}" if folder else name
            is_hidden = PARTIAL.search(name) is not None
            if not each.is_folder or is_hidden:
                whole = PARTIAL.sub("", key)
                if is_hidden is hidden and whole.startswith(prefix) and is_key(whole):
                    yield key, each
            elif f"{key}/".startswith(prefix) and is_key(key):
                yield from self._walk(prefix, hidden, key)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        beside = f"{check_key(key)}.{secrets.token_hex(8)}.part"
        view = memoryview(data)
        self._folder.enter()
        try:
            self._folder.put(beside, Body(view, self._folder.client.alive), described(view, metadata))
            if if_match is None:
                self._folder.move(beside, key, overwrite=not if_absent)
            else:
                self._replace(beside, key, if_match)
        except BaseException:
            with suppress(VmferryError):  # what is left of it, a cleanup finds
                self._folder.remove(beside)
                self._folder.tidy(beside)
            raise
        info = self._folder.find(key)
        if info is None or info.size != len(data):
            raise VmferryError("conflict", f"{self.object_url(key)} was replaced or removed while it was written.")
        return info

    def _replace(self, beside: str, key: str, if_match: str) -> None:
        self._require_same(key, if_match)
        with self._folder.locked(key) as lock:
            self._require_same(key, if_match)
            self._folder.move(beside, key, lock=lock)

    def _require_same(self, key: str, etag: str) -> None:
        info = self._folder.find(key)
        if info is None or not is_same(info, etag):
            raise VmferryError("conflict", f"{self.object_url(key)} has changed since it was read.")

    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        return DavParts.create(self._folder, check_key(key), metadata)

    def open_stream(self, key: str, size: int, *, metadata: Mapping[str, str] | None = None) -> StreamWriter | None:
        return DavStream(self._folder, check_key(key), size, metadata)

    def resume_parts(
        self, key: str, token: str, known: int, *, metadata: Mapping[str, str] | None = None
    ) -> PartWriter | None:
        check_key(key)
        return DavParts.resume(self._folder, key, metadata, token, known) if UPLOAD.fullmatch(token) else None

    def copy_within(self, source: Store, order: CopyOrder) -> ObjectInfo | None:
        """On one server, whose credentials for the target have to do for the source."""
        if not isinstance(source, DavStore) or source._folder.client.origin != self._folder.client.origin:
            return None
        check_key(order.key)
        return copy_on_server(source._folder, self._folder, order)

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        check_key(key)
        if if_match is None:
            self._folder.remove_file(key)
        elif self._folder.find(key) is not None:
            self._require_same(key, if_match)
            with self._folder.locked(key) as lock:
                self._require_same(key, if_match)
                self._folder.remove_file(key, lock)
        self._folder.tidy(key)

    def abort_uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool] | None = None) -> int:
        aborted = 0
        for key, each in list(self._walk(check_prefix(prefix), hidden=True)):
            if chosen is None or chosen(self._unfinished(key, each)):
                self._folder.remove(key, is_folder=each.is_folder)
                self._folder.tidy(key)
                aborted += 1
        return aborted

    def _unfinished(self, key: str, found: Resource) -> ObjectInfo:
        """Named after what was to be, and as young as the youngest of its parts."""
        parts = [each for _name, each in self._folder.entries(key) or []] if found.is_folder else []
        modified = max(found.modified, *(each.modified for each in parts)) if parts else found.modified
        return ObjectInfo(PARTIAL.sub("", key), found.size + sum(each.size for each in parts), "", modified)

    def free_space(self) -> int | None:
        try:
            return self._folder.available()
        except VmferryError as error:
            if error.kind != "unsupported":
                raise
            return None

    def limit_own_bytes(self, take: Callable[[int], object]) -> None:
        self._folder.moving = take

    def object_url(self, key: str) -> str:
        return self._folder.url_of(key)

    def close(self) -> None:
        self._folder.client.close()
