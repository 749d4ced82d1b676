# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies of answers, taken as they arrive: a range into memory that is there already, or a small object whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from ..._errors import VmferryError
from ..ranges import READ_CHUNK, fill, promised_bytes

if TYPE_CHECKING:
    import requests


class RangeAnswer:
    """Fills `buffer` from `offset` on."""

    def __init__(self, url: str, offset: int, buffer: memoryview, alive: Callable[[], object]) -> None:
        self._url, self._offset, self._buffer, self._alive = url, offset, buffer, alive

    def take(self, response: requests.Response) -> None:
        end = self._offset + len(self._buffer)
        promised = promised_bytes(response.status_code, response.headers, self._url, self._offset, end)
        fill(response.raw, self._buffer, promised, self._url, self._alive)


class WholeAnswer:
    """The first `limit` bytes of an object."""

    def __init__(self, limit: int, alive: Callable[[], object]) -> None:
        self._limit, self._alive = limit, alive
        self.found = bytearray()

    def take(self, response: requests.Response) -> None:
        self.found.clear()
        while chunk := response.raw.read(min(READ_CHUNK, self._limit - len(self.found)), decode_content=False):
            self.found += chunk
            self._alive()
        promised = int(response.headers.get("Content-Length", len(self.found)))
        _insist_on_all("an object", len(self.found), min(promised, self._limit))


def _insist_on_all(url: str, count: int, promised: int) -> None:
    """Before version 2, urllib3 takes a connection that breaks for the end of the body."""
    if count < promised:
        raise VmferryError("network", f"Reading {url} ended after {count} of {promised} bytes.", "Try again later.")
