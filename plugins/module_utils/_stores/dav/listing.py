# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a WebDAV server says of a folder: its answer to PROPFIND, read as hostile input.

The answer's form: https://www.rfc-editor.org/rfc/rfc4918#section-14.16
"""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Dict, List, Optional
from xml.parsers import expat

from ..._errors import VmferryError

ASKED = (
    b'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/>'
    b"<getlastmodified/><getetag/><quota-available-bytes/></prop></propfind>"
)
_VALUES = frozenset(("getcontentlength", "getlastmodified", "getetag", "quota-available-bytes"))
_DEEPEST = 32
_LONGEST = 16 * 1024  # characters of one value


@dataclass
class Resource:
    """`href` as the server wrote it."""

    href: str = ""
    is_folder: bool = False
    values: Dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return _number(self.values.get("getcontentlength", "")) or 0

    @property
    def modified(self) -> float:
        return seconds(self.values.get("getlastmodified", ""))

    @property
    def etag(self) -> str:
        return self.values.get("getetag", "")

    @property
    def available(self) -> Optional[int]:
        """Bytes: https://www.rfc-editor.org/rfc/rfc4331"""
        return _number(self.values.get("quota-available-bytes", ""))


class Listing:
    """Fed with pieces of an answer. No document type is taken, so there are no entities to expand."""

    def __init__(self) -> None:
        self.found: List[Resource] = []
        self._path: List[str] = []
        self._text: List[str] = []
        self._length = 0
        self._resource: Optional[Resource] = None
        self._values: Dict[str, str] = {}
        self._is_folder, self._status = False, ""
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = _refuse
        self._parser.EntityDeclHandler = _refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data

    def feed(self, data: bytes, last: bool = False) -> None:
        """Raises `unsupported` for what is no such answer."""
        try:
            self._parser.Parse(data, last)
        except expat.ExpatError as error:
            raise _no_answer("is not well-formed XML") from error

    def _start(self, name: str, attributes: Dict[str, str]) -> None:
        self._path.append(name[5:] if name.startswith("DAV: ") else "")
        self._text, self._length = [], 0
        if len(self._path) > _DEEPEST:
            raise _no_answer("is nested deeper than any such answer")
        if len(self._path) == 1 and self._path != ["multistatus"]:
            raise _no_answer("is another document")
        if self._path == ["multistatus", "response"]:
            self._resource = Resource()
        elif self._path[2:] == ["propstat"]:
            self._values, self._is_folder, self._status = {}, False, ""

    def _data(self, text: str) -> None:
        self._length += len(text)
        if self._length > _LONGEST:
            raise _no_answer("holds a value longer than any such answer")
        self._text.append(text)

    def _end(self, name: str) -> None:
        path, text = self._path[1:], "".join(self._text).strip()
        self._path.pop()
        self._text, self._length = [], 0
        if self._resource is None:
            return
        if path == ["response", "href"]:
            self._resource.href = text
        elif path == ["response", "propstat", "status"]:
            self._status = text
        elif path == ["response", "propstat", "prop", "resourcetype", "collection"]:
            self._is_folder = True
        elif path[:3] == ["response", "propstat", "prop"] and len(path) == 4 and path[3] in _VALUES:
            self._values[path[3]] = text
        elif path == ["response", "propstat"]:
            self._take()
        elif path == ["response"]:
            self.found.append(self._resource)
            self._resource = None

    def _take(self) -> None:
        """Properties that are not there are in a propstat with another status."""
        if self._resource is not None and self._status.split(" ")[1:2] == ["200"]:
            self._resource.values.update(self._values)
            self._resource.is_folder = self._resource.is_folder or self._is_folder


def _refuse(*_unused: object) -> None:
    raise _no_answer("declares a document type, which no such answer has")


def _no_answer(why: str) -> VmferryError:
    return VmferryError(
        "unsupported", f"What the server answers to PROPFIND {why}.", "Check that the storage URL is a WebDAV server's."
    )


def seconds(text: str) -> float:
    """Since the epoch; 0 for what is no HTTP date."""
    try:
        return parsedate_to_datetime(text).timestamp() if text else 0.0
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _number(text: str) -> Optional[int]:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
