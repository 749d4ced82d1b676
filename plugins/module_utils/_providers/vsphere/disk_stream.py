# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bytes of one file of a lease, read once, from the first to the last.

A server sends such a file from its beginning only. Where the line breaks it is asked for again, and what was read by
then is read once more, and compared: a disk that is frozen is sent alike.
"""

from __future__ import annotations

import hashlib
import socket
from contextlib import suppress
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from threading import Event, Lock
from typing import Any, Callable, Optional

from ..._errors import VmferryError
from .disk_servers import DiskServers
from .faults import of_connection
from .lease import LeaseFile

ATTEMPTS = 4  # to read one file; each begins at its beginning
PAUSE = 2.0  # seconds before the second, twice as long before the third
OK = 200
_AT_ONCE = 1 << 20
_BROKEN = "The line broke, or the host ended the stream. Run the task again; see the host's log if it ends so again."
_STATUS = "See the events of the VM and of its host in the vSphere Client."


class DiskStream:
    """`read` is for one thread at a time, `close` for any. `check` raises where nobody serves the file any more."""

    def __init__(
        self, servers: DiskServers, file: LeaseFile, where: str, check: Callable[[], object] = lambda: None
    ) -> None:
        self._servers, self._file, self._where, self._check = servers, file, where, check
        self._connection: Optional[HTTPSConnection] = None
        self._response: Optional[HTTPResponse] = None
        self._socket: Optional[socket.socket] = None
        self._hash = hashlib.new("sha1", usedforsecurity=False)
        self._closed, self._lock = Event(), Lock()
        self._reading = Lock()  # the response: http.client takes it apart under whoever reads it
        self._failures = 0
        self.size = 0  # bytes so far
        self.host = servers.host_of(file.url)[0]

    @property
    def sha1(self) -> str:
        """In hex, of what was read so far."""
        return self._hash.hexdigest()

    def read(self, count: int) -> bytes:
        """As many bytes as there are, up to `count`; nothing at the end. Raises `network`, `timeout` …"""
        try:
            with self._reading:
                return self._read(count)
        finally:
            if self._closed.is_set():
                self._release()

    def _read(self, count: int) -> bytes:
        while True:
            try:
                response = self._opened()
                data = response.read(count)
                if not data and response.length:  # which http.client does not take for an error
                    raise HTTPException(f"{response.length} bytes did not come")
            except (OSError, HTTPException) as error:
                self._again(of_connection(error, f"Reading {self._where}", self.host), error)
                continue
            except VmferryError as error:
                if not error.retryable:
                    raise
                self._again(error, error)
                continue
            self._hash.update(data)
            self.size += len(data)
            return data

    def close(self) -> None:
        """Whoever reads is woken, and lets go of the connection then."""
        self._closed.set()
        self.interrupt()
        self._release()

    def interrupt(self) -> None:
        """Whoever reads finds the line broken, and looks whether it is worth while to ask again."""
        with self._lock:
            socket_ = self._socket
        if socket_ is not None:
            with suppress(OSError):
                socket.socket.shutdown(socket_, socket.SHUT_RDWR)  # that of TLS would have the rest read undeciphered

    def _release(self) -> None:
        """Unless somebody reads, who does it himself: it was closed before he looks."""
        if self._reading.acquire(blocking=False):
            try:
                self._hang_up()
            finally:
                self._reading.release()

    def _opened(self) -> HTTPResponse:
        if self._closed.is_set():
            raise self._is_closed()
        if self._response is None:
            response = self._asked()
            self._read_again(response)
            self._response = response
        return self._response

    def _asked(self) -> HTTPResponse:
        connection, path = self._servers.connect(self._file.url, self._file.thumbprint)
        with self._lock:
            self._connection, self._socket = connection, connection.sock
        if self._closed.is_set():  # meanwhile
            raise self._is_closed()
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != OK:
            said = f"{response.status} {response.reason}"
            self._hang_up()
            self._check()
            raise VmferryError("network", f"Reading {self._where} failed: {self.host} answered {said}.", _STATUS)
        return response

    def _read_again(self, response: Any) -> None:
        """What was read from the connection before."""
        seen, left = hashlib.new("sha1", usedforsecurity=False), self.size
        while left:
            data = response.read(min(left, _AT_ONCE))
            if not data:
                raise HTTPException("it ended earlier than before")
            seen.update(data)
            left -= len(data)
        if seen.digest() != self._hash.digest():
            text = f"{self._where} is sent otherwise than it was before its stream broke."
            raise VmferryError("conflict", text, "Run the task again.", retryable=True)

    def _again(self, failure: VmferryError, cause: Exception) -> None:
        """Or raises what it failed with."""
        self._hang_up()
        self._response = None
        if self._closed.is_set():
            raise self._is_closed() from cause
        self._check()
        self._failures += 1
        if self._failures >= ATTEMPTS or failure.kind == "conflict":
            text = f"{failure.message} That was after {self.size} bytes, and attempt {self._failures}."
            raise VmferryError(failure.kind, text, failure.hint or _BROKEN, retryable=failure.retryable) from cause
        if self._closed.wait(PAUSE * 2 ** (self._failures - 1)):
            raise self._is_closed() from cause

    def _hang_up(self) -> None:
        """For whoever reads, and for others where nobody does."""
        self.interrupt()
        with self._lock:
            connection, self._connection, self._socket = self._connection, None, None
        if connection is not None:
            with suppress(OSError):
                connection.close()

    def _is_closed(self) -> VmferryError:
        return VmferryError("cancelled", f"{self._where} is not read any more.")
