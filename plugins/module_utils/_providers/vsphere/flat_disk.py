# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk read in ranges out of its flat file in a datastore, over HTTPS.

vCenter and ESXi serve the files of VMFS and NFS datastores below `/folder`; a disk's bytes lie in `name-flat.vmdk`
beside its descriptor `name.vmdk`. Whether they give ranges of it, and give it at all while a VM runs, differs by
version and storage, so it is tried before it is relied on. A range is what was asked for, of a file of the very size of
the disk (RFC 9110, 15.3.7), or it is not taken.
"""

from __future__ import annotations

import re
import socket
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from threading import Event, Lock
from typing import Callable, Iterator, Sequence
from urllib.parse import quote, unquote, urlencode

from ..._blocks import Extent, Piece
from ..._errors import Kind, VmferryError
from ..spec import VmSpec
from .disk_servers import ANY_HOST, DiskServers
from .session import Session

PROBE = 512  # bytes
LARGEST = 8 * 1024 * 1024  # bytes asked for at once; what breaks is asked for again, whole
LARGEST_GAP = 128 * 1024  # bytes that are read and thrown away, where another request would take longer
IDLE_LIMIT = 60.0  # seconds without a byte
RETRIES = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds between retries
_DESCRIPTOR = re.compile(r"\[(?P<store>[^\]]+)\] (?P<path>.+)\.vmdk")
_PASSING = (408, 429, 500, 502, 503, 504)  # the server says 500 also of a file that a host has locked


def flat_url(vm: VmSpec, descriptor: str) -> str:
    """Of the flat file of "[datastore] folder/name.vmdk"; empty where it cannot be said."""
    found, datacenter = _DESCRIPTOR.fullmatch(descriptor), datacenter_path(vm)
    if found is None or not datacenter:
        return ""
    where = urlencode({"dcPath": datacenter, "dsName": found["store"]})
    return f"https://{ANY_HOST}/folder/{quote(found['path'])}-flat.vmdk?{where}"


def datacenter_path(vm: VmSpec) -> str:
    """From the root of the inventory on, without a slash in front: F/DC0. Names are as the inventory has them."""
    parts = vm.path.split("/")[1:]
    for at, part in enumerate(parts[:-1]):
        if unquote(part) == vm.details["datacenter"] and parts[at + 1] == "vm":
            return "/".join(parts[: at + 1])
    return ""


class FlatDisk:
    """Plays BlockSource. Each thread that reads has a connection of its own, which is used again."""

    def __init__(
        self,
        servers: DiskServers,
        session: Session,
        url: str,
        size: int,
        label: str,
        *,
        retries: int = RETRIES,
        idle_limit: float = IDLE_LIMIT,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """`label`: "scsi0:0 of web01"; `idle_limit`: seconds without a byte."""
        self._servers, self._session, self._url, self._label = servers, session, url, label
        self.size = size
        self._retries, self._idle_limit = retries, idle_limit
        self._closed = Event()
        self._sleep = sleep or self._closed.wait
        self._lock = Lock()
        self._idle: list[HTTPSConnection] = []
        self._lent: dict[HTTPSConnection, socket.socket] = {}  # which http.client forgets where it is the last answer
        self._path = ""

    def probe(self) -> str:
        """Why it cannot be read so, as a sentence; empty where it can."""
        some = bytearray(min(PROBE, self.size))
        try:
            with memoryview(some) as view:
                self._fill([(0, view)], retries=1)  # for a session that has ended meanwhile
        except VmferryError as error:
            if error.kind == "cancelled":
                raise
            return error.message
        return ""

    def extents(self) -> Iterator[Extent]:
        if self.size:
            yield Extent(0, self.size, "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for run in _runs(pieces):
            self._fill(run, self._retries)

    def close(self) -> None:
        """Reads that are under way fail at once, with `cancelled`."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
            for lent in self._lent.values():
                _break_off(lent)
        for connection in idle:
            connection.close()

    def _fill(self, run: Sequence[Piece], retries: int) -> None:
        pause = FIRST_PAUSE
        for attempt in range(retries + 1):
            self._refuse_closed()
            try:
                return self._try(run)
            except VmferryError as error:
                self._refuse_closed(error)
                ended = error.kind == "unauthenticated"
                if attempt == retries or not (ended or error.retryable):
                    raise
                if ended:
                    self._session.renew()
            self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("the last attempt returns or raises")

    def _try(self, run: Sequence[Piece]) -> None:
        connection = self._borrow()
        usable = False
        try:
            usable = self._read(connection, run)
        except (OSError, HTTPException) as error:
            self._discard_idle()  # what hit this connection, such as a restart, has most likely hit them all
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise VmferryError("network", f"Reading {self._label} out of its datastore failed: {said}.") from error
        finally:
            self._give_back(connection, usable)

    def _read(self, connection: HTTPSConnection, run: Sequence[Piece]) -> bool:
        """Whether the connection can be used again."""
        start, end = run[0][0], run[-1][0] + len(run[-1][1])
        connection.request("GET", self._path, headers={"Range": f"bytes={start}-{end - 1}"})
        response = connection.getresponse()
        self._insist_on(response, start, end)
        at = start
        for offset, buffer in run:
            if at < offset:
                _read_full(response, memoryview(bytearray(offset - at)))
            _read_full(response, buffer)
            at = offset + len(buffer)
        return response.isclosed() and not response.will_close

    def _insist_on(self, response: HTTPResponse, start: int, end: int) -> None:
        status = response.status
        if status == 206:
            told = response.getheader("Content-Range", "")
            if told == f"bytes {start}-{end - 1}/{self.size}" and not response.getheader("Content-Encoding"):
                return
            text = (
                f"vSphere answered with {told or 'no range'} of the flat file of {self._label}, which has {self.size}"
            )
            raise VmferryError("conflict", f"{text} bytes, where bytes {start}-{end - 1} were asked for.")
        if status == 200:
            text = f"vSphere gives no ranges of the flat file of {self._label}, but all of it."
            raise VmferryError("unsupported", text)
        kind: Kind = "unsupported"
        hint = ""
        if status == 401:
            kind = "unauthenticated"
        elif status == 403:
            kind, hint = "permission_denied", "The user needs Datastore.Browse and Datastore.FileManagement there."
        elif status == 404:
            kind = "not_found"
        elif status in _PASSING:
            kind, hint = "busy", "A host may have the file locked."
        said = f"{status} {response.reason}".strip()
        raise VmferryError(kind, f"vSphere does not give the flat file of {self._label}: it answered {said}.", hint)

    def _borrow(self) -> HTTPSConnection:
        with self._lock:
            if self._idle:
                connection = self._idle.pop()
                self._lent[connection] = connection.sock
                return connection
        connection, self._path = self._servers.connect(self._url)
        connection.sock.settimeout(self._idle_limit)
        with self._lock:
            self._lent[connection] = connection.sock
            if self._closed.is_set():
                _break_off(connection.sock)
        return connection

    def _give_back(self, connection: HTTPSConnection, usable: bool) -> None:
        with self._lock:
            self._lent.pop(connection, None)
            usable = usable and not self._closed.is_set()
            if usable:
                self._idle.append(connection)
        if not usable:
            connection.close()

    def _discard_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _refuse_closed(self, cause: Exception | None = None) -> None:
        if self._closed.is_set():
            raise VmferryError("cancelled", f"The connections that read {self._label} were closed.") from cause


def _runs(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    """What is asked for at once: pieces that lie beside each other, or nearly so. A large one goes alone, in parts."""
    run: list[Piece] = []
    for offset, buffer in sorted(_parts(pieces), key=lambda piece: piece[0]):
        if run:
            end = run[-1][0] + len(run[-1][1])
            if not end <= offset <= end + LARGEST_GAP or offset + len(buffer) - run[0][0] > LARGEST:
                yield run
                run = []
        run.append((offset, buffer))
    if run:
        yield run


def _parts(pieces: Sequence[Piece]) -> Iterator[Piece]:
    for offset, buffer in pieces:
        for at in range(0, len(buffer), LARGEST):
            yield offset + at, buffer[at : at + LARGEST]


def _read_full(response: HTTPResponse, buffer: memoryview) -> None:
    at = 0
    while at < len(buffer):
        got = response.readinto(buffer[at:])
        if not got:
            raise ConnectionError(f"the answer ended {len(buffer) - at} bytes early")
        at += got


def _break_off(lent: socket.socket) -> None:
    """Whoever waits on it fails. Not `shutdown` of the TLS socket, which would take the state from under the reader."""
    try:
        socket.socket.shutdown(lent, socket.SHUT_RDWR)
    except OSError:
        return
