# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""XML that others wrote: no document type, so no entity of its own and nothing outside of it; bounded in depth and in
elements. Neither is expanded first and refused then: the parser stops where it begins.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Dict, NoReturn
from xml.parsers import expat

from .refusals import quoted, refused

MAX_DOCUMENT = 4 * 1024 * 1024  # bytes
MAX_DEPTH = 32
MAX_ELEMENTS = 50_000


def parse(data: bytes, where: str) -> ET.Element:
    """Names as ElementTree has them, `{namespace}name`. Raises `invalid_config`."""
    if len(data) > MAX_DOCUMENT:
        raise refused(where, f"has {len(data)} bytes; at most {MAX_DOCUMENT} are read")
    return _Document(where).parsed(data)


class _Document:
    def __init__(self, where: str) -> None:
        self._where = where
        self._builder = ET.TreeBuilder()
        self._depth = self._elements = 0
        self._parser = expat.ParserCreate(None, "}")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._builder.data
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.EntityDeclHandler = self._entity
        self._parser.ExternalEntityRefHandler = self._entity
        self._parser.SkippedEntityHandler = self._entity

    def parsed(self, data: bytes) -> ET.Element:
        try:
            self._parser.Parse(data, True)
        except expat.ExpatError as error:
            raise refused(self._where, f"is no XML: {expat.ErrorString(error.code)} in line {error.lineno}") from error
        except (ValueError, LookupError) as error:  # an encoding that nobody knows
            raise refused(self._where, "is no XML that can be read here") from error
        return self._builder.close()

    def _start(self, tag: str, attributes: Dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise refused(self._where, "has more or deeper elements than any descriptor of an appliance")
        self._builder.start(_name(tag), {_name(name): value for name, value in attributes.items()})

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._builder.end(_name(tag))

    def _doctype(self, name: str, *_unused: object) -> NoReturn:
        raise refused(self._where, f"declares the document type {quoted(name)}, which may hide what it says")

    def _entity(self, *_unused: object) -> NoReturn:
        raise refused(self._where, "has entities of its own, which may hide what it says")


def _name(tag: str) -> str:
    return f"{{{tag}" if "}" in tag else tag
