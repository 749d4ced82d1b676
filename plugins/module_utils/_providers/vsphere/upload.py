# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of an import on their way into a lease: disks as streams whose length nobody knows before, others as they are.

vSphere takes disks by POST as `application/x-vnd.vmware-streamVmdk`, and other files by PUT with `Overwrite: t`
(HttpNfcLease in the vSphere Web Services API). Nothing of a disk can be sent again: a stream that broke is over.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from http.client import HTTPException, HTTPSConnection
from typing import Sequence
from urllib.parse import quote

from ..._blocks import ObjectInfo, PartReceipt
from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..._transfer.ordered_parts import OrderedParts
from .faults import of_connection

DISK_TYPE = "application/x-vnd.vmware-streamVmdk"
CHUNK = 256 * 1024  # bytes that are announced at once (RFC 9112, 7.1)
LAST_WORDS = 10.0  # seconds for a server that hung up to have said why
SHOWN = 200  # characters of what it said
NO_SPACE = 507  # Insufficient Storage (RFC 4918)


class DiskUpload(OrderedParts):
    """Plays StreamWriter and PieceWriter: parts from any thread, sent in their order. `size`: of all that was sent."""

    def __init__(self, connection: HTTPSConnection, path: str, what: str, flow: Flow, piece_size: int) -> None:
        """`what`: is sent, in a word or two."""
        super().__init__(flow, piece_size)
        self._connection, self._what = connection, what
        with _Told(self):
            connection.putrequest("POST", _written(path))
            connection.putheader("Content-Type", DISK_TYPE)
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()

    def complete(self, receipts: Sequence[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        """The server has all of it, and has taken it for a disk of the size that was planned."""
        if size != self.size:
            raise VmferryError("internal", f"{self._what} has {size} bytes, of which {self.size} were sent.")
        with _Told(self):
            self._connection.send(b"0\r\n\r\n")
            answer = self._connection.getresponse()
            said = answer.read()
        insist_on_taken(answer.status, answer.reason, said, self._what)
        self._connection.close()
        return ObjectInfo(self._what, size)

    def leave(self) -> None:
        self.abort()

    def abort(self) -> None:
        """What was sent goes with the lease."""
        self.interrupt()
        self._connection.close()

    def interrupt(self) -> None:
        """From any thread: whoever sends here fails."""
        _interrupt(self._connection)

    def failure(self, error: Exception) -> VmferryError:
        """In the server's own words where it had any before it hung up."""
        sock = self._connection.sock
        if sock is not None:
            try:
                sock.settimeout(LAST_WORDS)
                answer = self._connection.getresponse()
                insist_on_taken(answer.status, answer.reason, answer.read(), self._what)
            except VmferryError as said:
                return said
            except (OSError, HTTPException):
                pass
        told = of_connection(error, f"Sending {self._what}", self._connection.host)
        hint = "A stream that broke cannot be gone on with: run the task again. The half VM is removed."
        return VmferryError(told.kind, told.message, hint, retryable=told.retryable)

    def _append(self, data: memoryview) -> None:
        with _Told(self):
            for at in range(0, len(data), CHUNK):
                piece = data[at : at + CHUNK]
                self._connection.send(b"%x\r\n" % len(piece))
                self._connection.send(piece)
                self._connection.send(b"\r\n")
        with self._flow.changing():
            self.size += len(data)


class _Told:
    """What fails inside is told as what it is: a stop of the job, or a failure of the server."""

    def __init__(self, upload: DiskUpload) -> None:
        self._upload = upload

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (OSError, HTTPException)):
            self._upload._flow.raise_if_stopped()
            raise self._upload.failure(error) from error


def send_file(connection: HTTPSConnection, path: str, data: bytes, what: str, flow: Flow) -> None:
    """A file that is no disk, such as the firmware's variables."""
    headers = {"Overwrite": "t", "Content-Type": "application/octet-stream"}
    try:
        with flow.on_stop(lambda: _interrupt(connection)):
            connection.request("PUT", _written(path), data, headers)
            answer = connection.getresponse()
            said = answer.read()
    except (OSError, HTTPException) as error:
        flow.raise_if_stopped()
        raise of_connection(error, f"Sending {what}", connection.host) from error
    finally:
        connection.close()
    insist_on_taken(answer.status, answer.reason, said, what)


def _interrupt(connection: HTTPSConnection) -> None:
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):  # it was gone already
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # that of TLS would have the rest sent in the clear


def _written(path: str) -> str:
    """As a request takes it: a server may offer names with blanks in them."""
    return quote(path, safe="/%?&=:@!$'()*+,;~[]")


def insist_on_taken(status: int, reason: str, said: bytes, what: str) -> None:
    if 200 <= status < 300:
        return
    text = " ".join(said.decode(errors="replace").split())[:SHOWN]
    words = f"{status} {reason}" + (f": {text}" if text and "<" not in text else "")
    if status == 411:
        raise VmferryError(
            "unsupported",
            f"Sending {what} failed: its server takes no stream of unknown length ({words}).",
            "A proxy before vSphere may be the reason: connect without it. Or export to an OVA, and deploy that with "
            "vSphere's own tools.",
        )
    kind = "no_space" if status == NO_SPACE else "unauthenticated" if status in (401, 403) else "network"
    hint = "The log of the ESXi host (hostd.log) tells more. Run the task again; the half VM is removed."
    raise VmferryError(kind, f"Sending {what} failed: the server answered {words}.", hint)  # type: ignore[arg-type]
