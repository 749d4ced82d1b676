# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a folder of an HTTP server: files by their headers and ranges, folders by WebDAV's PROPFIND.

Methods: https://www.rfc-editor.org/rfc/rfc9110#section-9.3 and https://www.rfc-editor.org/rfc/rfc4918#section-9.1
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Mapping, Optional, Tuple
from urllib.parse import quote, unquote, urlsplit

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..ranges import READ_CHUNK
from .client import Body, DavClient, origin_of
from .headers import decode_metadata, weak_etag
from .listing import ASKED, Listing, Resource, seconds

MISSING = ("not_found",)
XML = {"Content-Type": "application/xml; charset=utf-8"}
NOR_ABOVE = ", and neither does the folder above it"
_REPLACING = 0.01  # seconds in which a server may have neither the old object nor the new one
_LONGEST_LISTING = 256 * 1024 * 1024  # bytes of one answer to PROPFIND


class DavReading:
    """The folder of a storage URL. Keys are relative to it; they have been checked. Thread-safe."""

    def __init__(self, client: DavClient, prefix: str) -> None:
        """`prefix`: the URL's path, decoded, without slashes at its ends."""
        self.client, self._prefix = client, prefix
        self.url = self.url_of("")
        self._there = self._readable = self._above = False  # the root, and what it is in, as far as is known
        self.moving: Callable[[int], object] = lambda count: None  # told of bytes that no caller sends or asks for

    def url_of(self, key: str) -> str:
        return self.client.origin + self.target(key)

    def target(self, key: str, is_folder: bool = False) -> str:
        names = [name for name in (*self._prefix.split("/"), *key.split("/")) if name]
        path = "/" + "/".join(quote(name, safe="") for name in names)
        return path if not is_folder or path == "/" else f"{path}/"

    def head(self, key: str) -> Optional[ObjectInfo]:
        """None where it is not there, or is a folder."""
        try:
            _unused, headers = self.client.ask("HEAD", self.target(key), self.doing("Looking at", key))
        except VmferryError as error:
            if self._means_nothing(error, key):
                return None
            raise
        return self._info(key, headers)

    def find(self, key: str) -> Optional[ObjectInfo]:
        """As `head`, but looks twice: some servers remove what they replace, and only then move what replaces it."""
        info = self.head(key)
        if info is None:
            time.sleep(_REPLACING)
            info = self.head(key)
        return info

    def read(self, key: str, limit: int) -> Optional[Tuple[bytes, ObjectInfo]]:
        """The first `limit` bytes, and what was said of the object before them; None where it is not there."""
        found = bytearray()
        try:
            with self.reading(key) as answer:
                info = self._info(key, answer.headers)
                while chunk := answer.read(min(READ_CHUNK, limit - len(found))):
                    found += chunk
                    self.client.alive()
        except VmferryError as error:
            if self._means_nothing(error, key):
                return None
            raise
        return bytes(found), info

    def _info(self, key: str, headers: Mapping[str, str]) -> ObjectInfo:
        length = headers.get("Content-Length", "")
        if not length.isdigit():
            raise VmferryError(
                "unsupported",
                f"The server does not say how long {self.url_of(key)} is.",
                "Turn off what compresses or rewrites its answers.",
            )
        modified, etag = seconds(headers.get("Last-Modified", "")), headers.get("ETag", "")
        size = int(length)
        return ObjectInfo(key, size, etag or weak_etag(modified, size), modified, decode_metadata(headers))

    @contextmanager
    def reading(self, key: str, headers: Optional[Mapping[str, str]] = None) -> Iterator[Any]:
        """The answer to GET."""
        with self.client.open("GET", self.target(key), self.doing("Reading", key), headers) as answer:
            yield answer

    def _means_nothing(self, error: VmferryError, key: str) -> bool:
        """Whether there is no object at `key`. What stands there may be a folder, which some have no answer for."""
        if error.kind != "unsupported":
            return error.kind in MISSING
        found = self.properties(key, "0")
        return found is not None and any(each.is_folder for each in found)

    def entries(self, key: str) -> Optional[List[Tuple[str, Resource]]]:
        """Names in the folder at `key`, each with what the server says of it; None where there is no such folder."""
        found = self.properties(key, "1")
        if found is None:
            return None
        base = self._names(self.target(key, True))
        return [(name, each) for each in found for name in self._name(each.href, base)]

    def _name(self, href: str, base: List[str]) -> List[str]:
        """Empty for the folder itself. An answer that tells of another place is believed in nothing."""
        path = self._path_here(href)
        if path.startswith("/"):
            names = self._names(path)
            if names == base:
                return []
            if names[:-1] == base and "/" not in names[-1] and names[-1] not in (".", ".."):
                return [names[-1]]
        raise VmferryError(
            "unsupported",
            f"Asked what is in {self.url}, the server tells of {href[:200]!a}, which is elsewhere.",
            "A proxy before the server has to map paths and hosts in its answers, too.",
        )

    def _path_here(self, href: str) -> str:
        """Empty for an address of another host. The scheme may be another: a proxy speaks TLS for many a server."""
        try:
            parts = urlsplit(href)
            scheme = urlsplit(self.client.origin).scheme
            foreign = bool(parts.netloc) and origin_of(f"{scheme}://{parts.netloc}") != self.client.origin
        except ValueError:
            return ""
        return "" if foreign else parts.path

    @staticmethod
    def _names(path: str) -> List[str]:
        return [unquote(name, errors="surrogateescape") for name in path.strip("/").split("/") if name]

    def available(self) -> Optional[int]:
        found = self.properties("", "0")
        return found[0].available if found else None

    def properties(self, key: str, depth: str, *, is_folder: bool = True) -> Optional[List[Resource]]:
        """None where there is nothing."""
        listing, doing = Listing(), self.doing("Listing", key)
        headers = {**XML, "Depth": depth}
        try:
            with self.client.open(
                "PROPFIND", self.target(key, is_folder), doing, headers, Body(memoryview(ASKED), self.client.alive)
            ) as answer:
                if answer.status != 207:
                    raise VmferryError(
                        "unsupported",
                        f"{doing} failed: the server does not speak WebDAV.",
                        "Check that the storage URL is a WebDAV server's.",
                    )
                self._feed(answer, listing)
        except VmferryError as error:
            if error.kind in MISSING:
                return None
            raise
        return listing.found

    def _feed(self, answer: Any, listing: Listing) -> None:
        length = 0
        while data := answer.read(READ_CHUNK):
            length += len(data)
            if length > _LONGEST_LISTING:
                raise VmferryError("unsupported", f"A folder of {self.url} holds more than can be listed.", "Split it.")
            listing.feed(data)
            self.client.alive()
        listing.feed(b"", last=True)

    def require(self) -> None:
        """`not_found` without the root. A server that cannot be asked is taken at the word of its URL."""
        if not self._there and not self._readable:
            if not self._is_there():
                raise self.missing("")
            self._readable = True

    def require_above(self) -> None:
        """`not_found` without the root and without the folder above it: what writes would make the root there."""
        if self._there or self._readable or self._above or self._is_there():
            return
        if not DavReading(self.client, self._prefix.rpartition("/")[0])._is_there():
            raise self.missing(NOR_ABOVE)
        self._above = True

    def _is_there(self) -> bool:
        try:
            return self.properties("", "0") is not None
        except VmferryError as error:
            if error.kind not in ("unsupported", "permission_denied"):
                raise
            return True

    def missing(self, more: str) -> VmferryError:
        return VmferryError(
            "not_found",
            f"{self.url} does not exist{more}.",
            "Correct the storage URL, or create the folder on the server.",
        )

    def doing(self, verb: str, key: str) -> str:
        return f"{verb} {self.url_of(key)}"
