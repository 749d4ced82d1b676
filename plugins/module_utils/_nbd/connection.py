# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One NBD connection: newstyle, structured or simple replies, reads pipelined straight into the caller's memory."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterator, Sequence

from .._blocks import Piece
from .._errors import VmferryError
from . import protocol as p

if TYPE_CHECKING:
    import ssl

REQUEST_SIZE = 512 * 1024  # bytes; smaller costs system calls, larger costs pipelining
REQUESTS_IN_FLIGHT = 8
STATUS_LENGTH = 0xFFFF0000  # bytes; the most that one 32-bit request can ask for, in whole clusters


@dataclass(frozen=True)
class Address:
    """Where an NBD server listens: a Unix socket's path, or a host and a port. `tls`: upgraded before anything else."""

    path: str = ""
    host: str = ""
    port: int = 10809
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


@dataclass
class _Read:
    """A read under way: where its bytes go, and how many are still to come."""

    offset: int
    buffer: memoryview
    missing: int


class Connection:
    """Used by one thread at a time. After any error it is in an unknown state and must be closed."""

    def __init__(self, address: Address, export: str = "", contexts: Sequence[str] = (), timeout: float = 60.0) -> None:
        """`timeout`: seconds without a byte. Raises `network`, `timeout`, `not_found` for an export that is not there."""
        self.address, self.export = address, export
        self.contexts: dict[int, str] = {}
        self.size = self.flags = 0
        self._cookie, self._header = 0, memoryview(bytearray(p.REPLY_HEADER.size))
        self._socket = self._connect(timeout)
        self._wait_all = socket.MSG_WAITALL if address.tls is None else 0
        try:
            self._handshake(contexts)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        with suppress(OSError, VmferryError):  # the server may be gone already
            self._request(p.DISCONNECT, 0, 0)
        self._socket.close()

    # --- what a disk is asked ---------------------------------------------------------------------------------------

    def read_into(self, pieces: Sequence[Piece]) -> None:
        """Fill every piece; requests overlap, replies may come in any order."""
        waiting = deque(_split(pieces))
        flying: dict[int, _Read] = {}
        while waiting or flying:
            while waiting and len(flying) < REQUESTS_IN_FLIGHT:
                offset, buffer = waiting.popleft()
                flying[self._request(p.READ, offset, len(buffer))] = _Read(offset, buffer, len(buffer))
            self._receive_read(flying)

    def write(self, pieces: Sequence[Piece]) -> None:
        waiting = deque(_split(pieces))
        flying: set[int] = set()
        while waiting or flying:
            while waiting and len(flying) < REQUESTS_IN_FLIGHT:
                offset, data = waiting.popleft()
                flying.add(self._request(p.WRITE, offset, len(data)))
                self._send(data)
            self._receive_done(flying)

    def zero(self, offset: int, length: int) -> None:
        """Punches holes where the server can; reads as zeros in any case."""
        while length:
            count = min(length, 1 << 30)
            self._simple(p.WRITE_ZEROES, offset, count)
            offset, length = offset + count, length - count

    def flush(self) -> None:
        if self.flags & p.CAN_FLUSH:
            self._simple(p.FLUSH, 0, 0)

    def block_status(self, offset: int, length: int) -> dict[str, list[tuple[int, int]]]:
        """Per context, `(length, flags)` from `offset` on; a server may answer for less than was asked."""
        cookie = self._request(p.BLOCK_STATUS, offset, min(length, STATUS_LENGTH))
        found: dict[str, list[tuple[int, int]]] = {}
        done = False
        while not done:
            kind, got, size, done = self._reply_header()
            body = self._bytes(size, p.LONGEST_STATUS_REPLY)
            if got != cookie:
                raise self._garbage("answered another request")
            if kind & p.CHUNK_ERROR:
                raise self._refused(f"Asking for the map at {offset}", body)
            if kind == p.CHUNK_STATUS:
                if size < 12 or (size - 4) % 8:
                    raise self._garbage("sent half a map")
                name = self.contexts.get(struct.unpack_from(">I", body)[0])
                runs = list(struct.iter_unpack(">II", body[4:]))
                if name is None or any(not run for run, _ in runs):
                    raise self._garbage("sent a map of something else")
                found[name] = runs
        if set(found) != set(self.contexts.values()):
            raise self._garbage("left out a map")
        return found

    # --- replies ----------------------------------------------------------------------------------------------------

    def _receive_read(self, flying: dict[int, _Read]) -> None:
        kind, cookie, size, done = self._reply_header()
        if cookie not in flying:
            raise self._garbage("answered a request that was not made")
        request = flying[cookie]
        if kind == p.SIMPLE_REPLY:
            self._fill(request.buffer)
            request.missing = 0
        elif kind == p.CHUNK_DATA and size > 8:
            at = struct.unpack(">Q", self._bytes(8))[0] - request.offset
            self._fill(self._inside(request.buffer, at, size - 8))
            request.missing -= size - 8
        elif kind == p.CHUNK_HOLE and size == 12:
            offset, length = struct.unpack(">QI", self._bytes(12))
            self._inside(request.buffer, offset - request.offset, length)[:] = bytes(length)
            request.missing -= length
        elif kind & p.CHUNK_ERROR:
            raise self._refused(f"Reading at {request.offset}", self._bytes(size))
        elif kind != p.CHUNK_NONE or size:
            raise self._garbage(f"sent a chunk of kind {kind}")
        if done:
            del flying[cookie]
            if request.missing:  # the buffer is reused: it would keep another place's bytes
                raise self._garbage(f"left out {request.missing} bytes at {request.offset}")

    def _receive_done(self, flying: set[int]) -> None:
        kind, cookie, size, done = self._reply_header()
        if cookie not in flying:
            raise self._garbage("answered a request that was not made")
        if kind != p.SIMPLE_REPLY:
            body = self._bytes(size)
            if kind & p.CHUNK_ERROR:
                raise self._refused("Writing", body)
        if done:
            flying.discard(cookie)

    def _simple(self, command: int, offset: int, length: int) -> None:
        flying = {self._request(command, offset, length)}
        while flying:
            self._receive_done(flying)

    def _reply_header(self) -> tuple[int, int, int, bool]:
        """Kind, cookie, bytes that follow, and whether it is the request's last chunk."""
        self._fill(self._header)
        magic, flags, kind, cookie = p.REPLY_HEADER.unpack(self._header)
        if magic == p.STRUCTURED_REPLY:
            return kind, cookie, struct.unpack(">I", self._bytes(4))[0], bool(flags & p.CHUNK_DONE)
        if magic != p.SIMPLE_REPLY:
            raise self._garbage(f"sent {magic:#x} where a reply belongs")
        error = flags << 16 | kind
        if error:
            raise self._failed("A request", error, os.strerror(error))
        return p.SIMPLE_REPLY, cookie, 0, True

    # --- handshake --------------------------------------------------------------------------------------------------

    def _connect(self, timeout: float) -> socket.socket:
        try:
            if self.address.path:
                made = socket.socket(socket.AF_UNIX)
                made.settimeout(timeout)
                made.connect(self.address.path)
            else:
                made = socket.create_connection((self.address.host, self.address.port), timeout)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise VmferryError("network", f"No NBD server answers at {self.address}: {error}.") from error
        # Kernel timeouts from here on: settimeout() makes the socket non-blocking, and MSG_WAITALL then returns early.
        made.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            made.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(timeout), int(timeout % 1 * 1e6)))
        return made

    def _handshake(self, contexts: Sequence[str]) -> None:
        magic, version, flags = p.HANDSHAKE.unpack(self._bytes(p.HANDSHAKE.size))
        if magic != p.MAGIC or version != p.NEWSTYLE or not flags & p.FIXED_NEWSTYLE:
            raise self._garbage("does not speak the fixed newstyle protocol")
        self._send(struct.pack(">I", flags & (p.FIXED_NEWSTYLE | p.NO_ZEROES)))
        if self.address.tls is not None:
            self._start_tls(self.address.tls)
        name = struct.pack(">I", len(self.export.encode())) + self.export.encode()
        structured = not any(kind & p.REP_ERROR for kind, _ in self._option(p.OPT_STRUCTURED_REPLY, b""))
        if structured and contexts:
            wanted = b"".join(struct.pack(">I", len(one.encode())) + one.encode() for one in contexts)
            for kind, body in self._option(p.OPT_SET_META_CONTEXT, name + struct.pack(">I", len(contexts)) + wanted):
                if kind == p.REP_META_CONTEXT and len(body) > 4:
                    self.contexts[struct.unpack_from(">I", body)[0]] = body[4:].decode(errors="replace")
        self._go(name)

    def _start_tls(self, context: ssl.SSLContext) -> None:
        if any(kind & p.REP_ERROR for kind, _ in self._option(p.OPT_STARTTLS, b"")):
            raise VmferryError("network", f"The NBD server at {self.address} refuses TLS.", retryable=False)
        import ssl

        try:
            self._socket = context.wrap_socket(self._socket, server_hostname=self.address.host or None)
        except ssl.SSLError as error:
            reason = f"The TLS handshake with the NBD server at {self.address} failed: {error.reason}."
            raise VmferryError("network", reason, "Check its certificate.", retryable=False) from error

    def _go(self, name: bytes) -> None:
        known = False
        for kind, body in self._option(p.OPT_GO, name + struct.pack(">H", 0)):
            if kind & p.REP_ERROR:
                said = body.decode(errors="replace")[:200]
                if kind == p.REP_ERR_TLS_REQD:
                    raise VmferryError("unauthenticated", f"The NBD server at {self.address} insists on TLS.")
                raise VmferryError("not_found", f"The NBD server at {self.address} has no export {self.export!r}: {said}.")
            if kind == p.REP_INFO and body[:2] == b"\0\0" and len(body) >= 12:
                self.size, self.flags = struct.unpack_from(">QH", body, 2)
                known = True
        if not known:
            raise self._garbage("did not say how large the export is")

    def _option(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        self._send(p.OPTION_HEADER.pack(p.NEWSTYLE, option, len(data)) + data)
        replies = []
        while True:
            magic, _, kind, size = p.OPTION_REPLY_HEADER.unpack(self._bytes(p.OPTION_REPLY_HEADER.size))
            if magic != p.OPTION_REPLY:
                raise self._garbage("does not answer options")
            replies.append((kind, self._bytes(size, p.LONGEST_OPTION_REPLY)))
            if kind == p.REP_ACK or kind & p.REP_ERROR:
                return replies

    # --- bytes ------------------------------------------------------------------------------------------------------

    def _request(self, command: int, offset: int, length: int) -> int:
        self._cookie += 1
        self._send(p.REQUEST_HEADER.pack(p.REQUEST, 0, command, self._cookie, offset, length))
        return self._cookie

    def _send(self, data: bytes | memoryview) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(error) from error

    def _bytes(self, size: int, limit: int = 1 << 16) -> bytes:
        if size > limit:
            raise self._garbage(f"announced {size} bytes where {limit} are the most")
        data = bytearray(size)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, buffer: memoryview) -> None:
        while buffer:
            try:
                got = self._socket.recv_into(buffer, len(buffer), self._wait_all)
            except OSError as error:
                raise self._broken(error) from error
            if not got:
                raise VmferryError("network", f"The NBD server at {self.address} closed the connection.")
            buffer = buffer[got:]

    def _inside(self, buffer: memoryview, at: int, length: int) -> memoryview:
        if at < 0 or at + length > len(buffer):
            raise self._garbage("sent bytes that were not asked for")
        return buffer[at : at + length]

    def _broken(self, error: OSError) -> VmferryError:
        if isinstance(error, (BlockingIOError, TimeoutError)):  # what a kernel timeout looks like
            return VmferryError("timeout", f"The NBD server at {self.address} stopped answering.")
        return VmferryError("network", f"The connection to the NBD server at {self.address} broke: {error}.")

    def _refused(self, doing: str, body: bytes) -> VmferryError:
        if len(body) < 6:
            return self._garbage("sent half an error")
        error, length = struct.unpack_from(">IH", body)
        said = body[6 : 6 + length].decode(errors="replace")[:200]
        return self._failed(doing, error, said or os.strerror(error))

    def _failed(self, doing: str, error: int, said: str) -> VmferryError:
        return VmferryError(p.KINDS.get(error, "internal"), f"{doing} failed at the NBD server {self.address}: {said}.")

    def _garbage(self, what: str) -> VmferryError:
        return VmferryError("internal", f"The NBD server at {self.address} {what}.", "It does not keep to the protocol.")


def _split(pieces: Sequence[Piece]) -> Iterator[Piece]:
    for offset, buffer in pieces:
        for at in range(0, len(buffer), REQUEST_SIZE):
            yield offset + at, buffer[at : at + REQUEST_SIZE]
