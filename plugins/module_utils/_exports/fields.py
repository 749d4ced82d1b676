# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading JSON that nobody vouches for: every value is asked for by its type, its range and its shape."""

from __future__ import annotations

import json
import re
from typing import Any, Iterator, Mapping

from .._errors import VmferryError

LONGEST_TEXT = 4096  # characters of any one value
LARGEST_NUMBER = 1 << 63
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # one path segment, never "." or ".."
DEEPEST = 32  # lists and objects in one another; what can be read might be too deep to be written, to sign it
_HEX = re.compile(r"[0-9a-f]*")


class Fields:
    """A JSON object and where it came from, so that an error can say which value lies."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise lie(where, "is not a JSON object")
        self._data: Mapping[str, Any] = data
        self._where = where

    @classmethod
    def parse(cls, text: bytes, where: str) -> Fields:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise lie(where, "is not JSON") from error
        if _is_deeper(found, DEEPEST):
            raise lie(where, "nests deeper than anything that is written")
        return cls(found, where)

    def text(self, key: str, default: str | None = None, longest: int = LONGEST_TEXT) -> str:
        value = self._value(key, default)
        if not isinstance(value, str) or len(value) > longest:
            raise self._lie(key, "is not a text")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_NUMBER:
            raise self._lie(key, "is not a whole number from 0 on")
        return value

    def decimal(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= LARGEST_NUMBER:
            raise self._lie(key, "is not a number from 0 on")
        return float(value)

    def truth(self, key: str, default: bool | None = None) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self._lie(key, "is neither true nor false")
        return value

    def hex(self, key: str, digits: int) -> str:
        value = self.text(key)
        if len(value) != digits or not _HEX.fullmatch(value):
            raise self._lie(key, f"is not {digits} hexadecimal digits")
        return value

    def name(self, key: str) -> str:
        """A file beside the manifest: one plain path segment."""
        value = self.text(key)
        if not PLAIN_NAME.fullmatch(value):
            raise self._lie(key, "is not a plain file name")
        return value

    def path(self, key: str) -> str:
        """A file at or below the manifest's folder: plain segments, nothing that climbs."""
        value = self.text(key)
        if not all(PLAIN_NAME.fullmatch(segment) for segment in value.split("/")):
            raise self._lie(key, "is not a plain relative path")
        return value

    def one_of(self, key: str, *allowed: str) -> str:
        value = self.text(key)
        if value not in allowed:
            raise self._lie(key, f"is none of {', '.join(allowed)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._each(key, str))

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._value(key, {})
        if not isinstance(value, dict):
            raise self._lie(key, "is not a JSON object")
        return value

    def all(self) -> Mapping[str, Any]:
        return self._data

    def object(self, key: str) -> Fields:
        return Fields(self._value(key, None), f"{self._where}: {key}")

    def objects(self, key: str) -> Iterator[Fields]:
        for index, value in enumerate(self._each(key, dict)):
            yield Fields(value, f"{self._where}: {key}[{index}]")

    def lie(self, what: str) -> VmferryError:
        return lie(self._where, what)

    def _value(self, key: str, default: Any) -> Any:
        value = self._data.get(key, default)
        if value is None:
            raise self._lie(key, "is missing")
        return value

    def _each(self, key: str, kind: type) -> list[Any]:
        value = self._value(key, [])
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            raise self._lie(key, "is not a list of what belongs there")
        return value

    def _lie(self, key: str, what: str) -> VmferryError:
        return lie(self._where, f"cannot be trusted: {key} {what}")


def _is_deeper(found: Any, most: int) -> bool:
    """An object in an object is 2 deep."""
    level = [found]
    for _unused in range(most):
        below = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list)))
        level = [one for each in below for one in each if isinstance(one, (dict, list))]
        if not level:
            return False
    return True


def lie(where: str, what: str) -> VmferryError:
    return VmferryError(
        "invalid_config",
        f"{where} {what}.",
        "Whatever wrote it was not this collection, or it was changed since; use another export.",
    )
