# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A byte stream to an NBD server: a plain socket that fills memory without copies, or the same under TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Union

from .._errors import VmferryError
from .failures import failed_call
from .protocol import DEFAULT_PORT

Buffer = Union[bytes, bytearray, memoryview]


@dataclass(frozen=True)
class Address:
    """Where a server listens: the path of a unix socket, or a host and a port."""

    path: str = ""
    host: str = ""
    port: int = DEFAULT_PORT

    @classmethod
    def unix(cls, path: str | Path) -> Address:
        return cls(path=str(path))

    @classmethod
    def tcp(cls, host: str, port: int = DEFAULT_PORT) -> Address:
        return cls(host=host, port=port)

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.host):
            raise VmferryError("invalid_config", "An NBD server is reached by a unix socket's path or by a host.")

    def __str__(self) -> str:
        return f"NBD server {self.path}" if self.path else f"NBD server {self.host}:{self.port}"


class Transport(Protocol):
    """Raises VmferryError `network` or `timeout`; unusable after that."""

    def fill(self, buffer: memoryview) -> None:
        """The next `len(buffer)` bytes, all of them."""

    def send(self, head: Buffer, body: Buffer = b"") -> None: ...

    def wait_for(self, seconds: float) -> None:
        """From now on the limit of each call that moves no byte."""

    def abort(self) -> None:
        """End the stream, from any thread: whoever waits on it fails at once."""

    def close(self) -> None: ...


class PlainTransport:
    """Timeouts are the kernel's, per call that moves no byte at all.

    Not `settimeout`: that makes the socket non-blocking, and MSG_WAITALL would return early, at the price of one
    poll and one wake-up for each 200 KiB.
    """

    def __init__(self, connected: socket.socket, where: str, idle_timeout: float) -> None:
        self.socket, self._where = connected, where
        connected.settimeout(None)
        set_kernel_timeouts(connected, idle_timeout)

    def fill(self, buffer: memoryview) -> None:
        receive = self.socket.recv_into
        try:
            while buffer:
                got = receive(buffer, 0, socket.MSG_WAITALL)
                if not got:
                    raise VmferryError("network", f"{self._where} closed the connection.")
                buffer = buffer[got:]
        except OSError as error:
            raise failed_call(f"Reading from {self._where}", error) from error

    def send(self, head: Buffer, body: Buffer = b"") -> None:
        try:
            sent = self.socket.sendmsg((head, body)) - len(head)
            if sent < 0:
                self.socket.sendall(memoryview(head)[sent:])
                sent = 0
            if sent < len(body):
                self.socket.sendall(memoryview(body)[sent:])
        except OSError as error:
            raise failed_call(f"Sending to {self._where}", error) from error

    def wait_for(self, seconds: float) -> None:
        set_kernel_timeouts(self.socket, seconds)

    def abort(self) -> None:
        with contextlib.suppress(OSError):  # the server was faster
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.socket.close()


class TlsTransport:
    """Timeouts are Python's: on a blocking socket its TLS loop would start over after every kernel timeout."""

    def __init__(self, plain: PlainTransport, context: ssl.SSLContext, name: str, where: str, timeout: float) -> None:
        self._where = where
        plain.socket.settimeout(timeout)
        try:
            self._socket = context.wrap_socket(plain.socket, server_hostname=name)
        except OSError as error:
            failure = failed_call(f"The TLS handshake with {where}", error)
            if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError) and failure.kind == "network":
                failure = VmferryError("unauthenticated", failure.message, "Check the TLS settings of both sides.")
            raise failure from error

    def fill(self, buffer: memoryview) -> None:
        try:
            while buffer:
                got = self._socket.recv_into(buffer)
                if not got:
                    raise VmferryError("network", f"{self._where} closed the connection.")
                buffer = buffer[got:]
        except OSError as error:
            raise failed_call(f"Reading from {self._where}", error) from error

    def send(self, head: Buffer, body: Buffer = b"") -> None:
        try:
            self._socket.sendall(head)
            if body:
                self._socket.sendall(body)
        except OSError as error:
            raise failed_call(f"Sending to {self._where}", error) from error

    def wait_for(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            # SSLSocket.shutdown would also throw away the TLS state under the thread that reads.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


def connect(address: Address, idle_timeout: float) -> PlainTransport:
    """Raises VmferryError `network`, `timeout` or `permission_denied`."""
    try:
        if address.path:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                set_kernel_timeouts(connected, idle_timeout)  # a full backlog also makes connect wait
                connected.connect(address.path)
            except BaseException:
                connected.close()
                raise
        else:
            connected = socket.create_connection((address.host, address.port), idle_timeout)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise failed_call(f"Connecting to {address}", error) from error
    return PlainTransport(connected, str(address), idle_timeout)


def set_kernel_timeouts(connected: socket.socket, seconds: float) -> None:
    whole = int(seconds)
    timeval = struct.pack("@ll", whole, max(int((seconds - whole) * 1_000_000), 0 if whole else 1))  # 0 is for ever
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
