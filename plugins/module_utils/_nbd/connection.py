# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection to one export, used by one thread at a time.

Requests are pipelined, and the server may answer them in any order. The first error ends the connection: what is
still in flight could no longer be told apart from what comes next.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import Iterator, Sequence

from .._blocks import Piece
from .._errors import VmferryError
from .coverage import Coverage
from .failures import garbage, refused_command
from .handshake import Export, Handshake, Opening, Security, unwatched
from .protocol import (
    BLOCK_DESCRIPTOR,
    CHUNK,
    CHUNK_DATA,
    CHUNK_ERROR,
    CHUNK_HOLE,
    CHUNK_IS_ERROR,
    FLAG_DONE,
    FLAG_NO_HOLE,
    MAX_ERROR_PAYLOAD,
    MAX_STATUS_PAYLOAD,
    MAX_STATUS_REQUEST,
    NO_FLAGS,
    REQUEST,
    REQUEST_MAGIC,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    UINT32,
    Chunk,
    Command,
    TransmissionFlag,
)
from .transport import Address

REQUEST_SIZE = 512 * 1024  # bytes; 256 KiB to 1 MiB measure alike, and the window in flight stays at 8 MiB
REQUESTS_IN_FLIGHT = 16  # what qemu serves at once on one connection
ZERO_SIZE = 32 * 1024 * 1024  # bytes; larger ones may be refused, or outlast the timeout on a slow disk
DEFAULT_IDLE_TIMEOUT = 60.0  # seconds
FLUSH_TIMEOUT = 3600.0  # seconds; a host may hold many gigabytes back, and a slow disk takes them at its own pace
PLAIN = Security()


class Connection:
    """Raises VmferryError: `network`, `timeout`, `not_found` (no such export), `invalid_config` (TLS differs),
    `unauthenticated`, `permission_denied`, `no_space`, `unsupported`, or `internal` where the server breaks the
    protocol or reports a failure of its own. After any error the connection is closed and must be thrown away.
    """

    def __init__(
        self,
        address: Address,
        export: str = "",
        contexts: Sequence[str] = (),
        *,
        security: Security = PLAIN,
        idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
        opening: Opening = unwatched,
    ) -> None:
        self.usable = False
        self._where = f"Export {export!r} of {address}" if export else f"The default export of {address}"
        handshake = Handshake(address, security, idle_timeout, opening)
        self._transport, self._idle_timeout = handshake.transport, idle_timeout
        try:
            self.export: Export = handshake.go(export, contexts)
        except BaseException:
            self._transport.close()
            raise
        largest = self.export.max_payload
        self._request_size = min(REQUEST_SIZE, largest - largest % self.export.min_block)
        self._cookie = 0
        self._head = memoryview(bytearray(CHUNK.size))
        self._data_head = memoryview(bytearray(CHUNK_DATA.size))
        self.usable = True

    def close(self) -> None:
        """Says goodbye where that is still possible."""
        if not self.usable:
            return
        self.usable = False
        try:
            self._transport.send(REQUEST.pack(REQUEST_MAGIC, NO_FLAGS, Command.DISC, 0, 0, 0))
        except VmferryError:
            pass  # the server was faster
        finally:
            self._transport.close()

    def abort(self) -> None:
        """From any thread: whoever waits on this connection fails at once."""
        self._transport.abort()

    def read_into(self, pieces: Sequence[Piece]) -> None:
        """Fill every piece. Offsets and lengths are multiples of the export's `min_block`."""
        with self._exchange():
            waiting = self._requests(pieces)
            flying: dict[int, tuple[int, memoryview, Coverage]] = {}
            self._send_reads(waiting, flying, REQUESTS_IN_FLIGHT)
            receive = self._receive_chunk if self.export.structured else self._receive_simple_read
            while flying:
                receive(flying)
                if len(flying) <= REQUESTS_IN_FLIGHT // 2:  # one call for several requests
                    self._send_reads(waiting, flying, REQUESTS_IN_FLIGHT - len(flying))

    def write(self, pieces: Sequence[Piece]) -> None:
        """Acknowledged by the server when it returns; durable after `flush`. Aligned like `read_into`."""
        with self._exchange():
            flying: dict[int, str] = {}
            for offset, data in self._requests(pieces):
                self._send(flying, Command.WRITE, offset, len(data), data=data)
            self._acknowledge_all(flying)

    def write_zeroes(self, offset: int, length: int, *, no_hole: bool = False) -> None:
        """With `no_hole` the server allocates the range, so that later writes there do not run out of space."""
        self._demand(TransmissionFlag.SEND_WRITE_ZEROES)
        self._send_in_steps(Command.WRITE_ZEROES, offset, length, FLAG_NO_HOLE if no_hole else NO_FLAGS)

    def flush(self) -> None:
        """However long that takes: no byte moves meanwhile, so the idle timeout does not apply."""
        self._demand(TransmissionFlag.SEND_FLUSH)
        with self._exchange():
            flying: dict[int, str] = {}
            self._send(flying, Command.FLUSH, 0, 0)
            self._transport.wait_for(max(FLUSH_TIMEOUT, self._idle_timeout))
            self._acknowledge_all(flying)
            self._transport.wait_for(self._idle_timeout)

    def block_status(self, offset: int, length: int) -> dict[str, Iterator[tuple[int, ...]]]:
        """Per context, (length, flags) of runs from `offset` on.

        A server may answer for less than was asked, and differently far in each context; its last run may reach
        beyond what was asked.
        """
        with self._exchange():
            self._check_range(offset, length)
            flying: dict[int, str] = {}
            self._send(flying, Command.BLOCK_STATUS, offset, min(length, MAX_STATUS_REQUEST))
            found: dict[str, Iterator[tuple[int, ...]]] = {}
            done = False
            while not done:
                kind, cookie, done = self._reply_head(flying)
                if kind == Chunk.BLOCK_STATUS:
                    context, runs = self._status_payload()
                    if context in found:
                        raise garbage(self._where, f"it reported {context} twice")
                    found[context] = runs
                elif kind is not None:
                    self._finish_chunk(kind, flying[cookie], done)
            if set(found) != set(self.export.contexts.values()):
                raise garbage(self._where, "its block status leaves a context out")
            return found

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        if not self.usable:
            raise VmferryError("network", f"{self._where}: this connection has ended.")
        try:
            yield
        except BaseException:  # also an interrupt: the stream stands somewhere within a reply
            self.usable = False
            self._transport.close()
            raise

    def _demand(self, flag: TransmissionFlag) -> None:
        if not self.export.can(flag):
            raise VmferryError("unsupported", f"{self._where} does not take {flag.name}, it says.")

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.export.size:
            raise VmferryError(
                "internal", f"{self._where} has {self.export.size} bytes; {length} bytes at {offset} lie outside."
            )

    def _requests(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        step = self._request_size
        for offset, buffer in pieces:
            self._check_range(offset, len(buffer))
            for at in range(0, len(buffer), step):
                yield offset + at, buffer[at : at + step]

    def _request(self, command: Command, offset: int, length: int, flags: int = NO_FLAGS) -> bytes:
        self._cookie += 1
        return REQUEST.pack(REQUEST_MAGIC, flags, command, self._cookie, offset, length)

    def _send_reads(
        self, waiting: Iterator[Piece], flying: dict[int, tuple[int, memoryview, Coverage]], count: int
    ) -> None:
        requests = []
        for offset, buffer in islice(waiting, count):
            requests.append(self._request(Command.READ, offset, len(buffer)))
            flying[self._cookie] = (offset, buffer, Coverage(len(buffer)))
        if requests:
            self._transport.send(b"".join(requests))

    def _receive_chunk(self, flying: dict[int, tuple[int, memoryview, Coverage]]) -> None:
        """The next chunk of a structured reply to one of the reads in flight."""
        fill = self._transport.fill
        fill(self._head)
        magic, flags, kind, cookie = CHUNK.unpack(self._head)
        if magic != STRUCTURED_REPLY_MAGIC or cookie not in flying:
            raise self._not_a_reply(magic)
        offset, buffer, coverage = flying[cookie]
        if kind == Chunk.OFFSET_DATA:
            fill(self._data_head)
            size, start = CHUNK_DATA.unpack(self._data_head)
            start, length = start - offset, size - 8
            if not coverage.add(start, length):
                raise garbage(self._where, f"it sent bytes that a read at {offset} did not ask for, or sent them twice")
            fill(buffer[start : start + length])
        elif kind == Chunk.OFFSET_HOLE:
            size, start, length = CHUNK_HOLE.unpack(self._receive(CHUNK_HOLE.size))
            start -= offset
            if size != 12 or not coverage.add(start, length):
                raise garbage(self._where, f"it sent a hole that a read at {offset} did not ask for, or sent it twice")
            buffer[start : start + length] = bytes(length)
        else:
            self._finish_chunk(kind, f"reading {len(buffer)} bytes at {offset}", bool(flags & FLAG_DONE))
        if flags & FLAG_DONE:
            if coverage.missing:
                raise garbage(self._where, f"it left out {coverage.missing} bytes of a read at {offset}")
            del flying[cookie]

    def _receive_simple_read(self, flying: dict[int, tuple[int, memoryview, Coverage]]) -> None:
        self._transport.fill(self._head)
        magic, errno, cookie = SIMPLE_REPLY.unpack(self._head)
        if magic != SIMPLE_REPLY_MAGIC or cookie not in flying:
            raise self._not_a_reply(magic)
        offset, buffer, _unused = flying.pop(cookie)
        if errno:
            raise self._refused(f"reading {len(buffer)} bytes at {offset}", errno)
        self._transport.fill(buffer)

    def _send_in_steps(self, command: Command, offset: int, length: int, flags: int) -> None:
        with self._exchange():
            self._check_range(offset, length)
            flying: dict[int, str] = {}
            end = offset + length
            for at in range(offset, end, ZERO_SIZE):
                self._send(flying, command, at, min(ZERO_SIZE, end - at), flags)
            self._acknowledge_all(flying)

    def _send(
        self,
        flying: dict[int, str],
        command: Command,
        offset: int,
        length: int,
        flags: int = NO_FLAGS,
        data: memoryview | bytes = b"",
    ) -> None:
        if len(flying) == REQUESTS_IN_FLIGHT:
            self._acknowledge(flying)
        request = self._request(command, offset, length, flags)
        flying[self._cookie] = f"{command.name} of {length} bytes at {offset}"
        self._transport.send(request, data)

    def _acknowledge_all(self, flying: dict[int, str]) -> None:
        while flying:
            self._acknowledge(flying)

    def _acknowledge(self, flying: dict[int, str]) -> None:
        """One of the requests in flight is done."""
        kind, cookie, done = self._reply_head(flying)
        if kind is not None:
            self._finish_chunk(kind, flying[cookie], done)
        del flying[cookie]

    def _reply_head(self, flying: dict[int, str]) -> tuple[int | None, int, bool]:
        """(chunk type or None for a simple reply, cookie, whether it is the last of its reply)."""
        self._transport.fill(self._head)
        magic, flags, kind, cookie = CHUNK.unpack(self._head)
        if magic == STRUCTURED_REPLY_MAGIC and self.export.structured and cookie in flying:
            return kind, cookie, bool(flags & FLAG_DONE)
        if magic != SIMPLE_REPLY_MAGIC or cookie not in flying:
            raise self._not_a_reply(magic)
        errno = SIMPLE_REPLY.unpack(self._head)[1]
        if errno:
            raise self._refused(flying[cookie], errno)
        return None, cookie, True

    def _finish_chunk(self, kind: int, doing: str, done: bool) -> None:
        """The rest of a chunk that carries no content: the end of a reply, or an error, which is raised."""
        size = UINT32.unpack(self._receive(UINT32.size))[0]
        if kind == Chunk.NONE and size == 0 and done:
            return
        if not kind & CHUNK_IS_ERROR or not CHUNK_ERROR.size <= size <= MAX_ERROR_PAYLOAD:
            raise garbage(self._where, f"it sent a chunk of type {kind} and {size} bytes where none belongs")
        payload = self._receive(size)
        errno, length = CHUNK_ERROR.unpack_from(payload)
        message = payload[CHUNK_ERROR.size : CHUNK_ERROR.size + length].decode(errors="replace")
        raise self._refused(doing, errno, message)

    def _status_payload(self) -> tuple[str, Iterator[tuple[int, ...]]]:
        size = UINT32.unpack(self._receive(UINT32.size))[0]
        if size < 12 or (size - 4) % BLOCK_DESCRIPTOR.size or size > MAX_STATUS_PAYLOAD:
            raise garbage(self._where, f"its block status has {size} bytes")
        payload = memoryview(self._receive(size))
        context = self.export.contexts.get(UINT32.unpack_from(payload)[0])
        if context is None:
            raise garbage(self._where, "it reported a context that was not agreed on")
        return context, BLOCK_DESCRIPTOR.iter_unpack(payload[4:])

    def _receive(self, length: int) -> bytearray:
        data = bytearray(length)
        self._transport.fill(memoryview(data))
        return data

    def _not_a_reply(self, magic: int) -> VmferryError:
        if magic in (SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC):
            return garbage(self._where, "it answered a request that was not made, or in a form not agreed on")
        return garbage(self._where, f"{magic:#x} does not start a reply")

    def _refused(self, doing: str, errno: int, message: str = "") -> VmferryError:
        return refused_command(f"{self._where}: {doing}", errno, message)


def list_exports(
    address: Address, *, security: Security = PLAIN, idle_timeout: float = DEFAULT_IDLE_TIMEOUT
) -> list[str]:
    """The names of a server's exports, as far as it tells."""
    handshake = Handshake(address, security, idle_timeout)
    try:
        names = handshake.names()
        handshake.leave()
        return names
    finally:
        handshake.transport.close()


def describe_export(
    address: Address, export: str = "", *, security: Security = PLAIN, idle_timeout: float = DEFAULT_IDLE_TIMEOUT
) -> Export:
    """Size, flags and block sizes, without opening the export. `unsupported` on servers without NBD_OPT_INFO."""
    handshake = Handshake(address, security, idle_timeout)
    try:
        described = handshake.info(export)
        handshake.leave()
        return described
    finally:
        handshake.transport.close()
