# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a fresh stream to an export: fixed newstyle negotiation, with the fallbacks that older servers need."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Callable, Mapping, Sequence

from .._errors import VmferryError
from .failures import garbage, refused_option
from .protocol import (
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_MIN_BLOCK,
    EXPORT_NAME_PADDING,
    EXPORT_NAME_REPLY,
    GREETING,
    INFO_BLOCK_SIZE,
    INFO_EXPORT,
    INIT_MAGIC,
    MAX_OPTION_REPLIES,
    MAX_OPTION_REPLY,
    MAX_STRING,
    OLDSTYLE_MAGIC,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    REPLY_IS_ERROR,
    UINT16,
    UINT32,
    HandshakeFlag,
    Info,
    Option,
    Reply,
    TransmissionFlag,
)
from .transport import Address, PlainTransport, TlsTransport, Transport, connect


@dataclass(frozen=True)
class Security:
    """TLS for a connection. With a `context` the server must speak TLS, else no byte of ours reaches it.

    `name` is what the server's certificate must be made for (default: the host, or `localhost` on a unix socket).
    """

    context: ssl.SSLContext | None = None
    name: str = ""


@dataclass(frozen=True)
class Export:
    """What a server says of an export. Sizes are bytes; `contexts` are the ids of those it agreed to report."""

    name: str
    size: int
    flags: int
    min_block: int = DEFAULT_MIN_BLOCK
    max_payload: int = DEFAULT_MAX_PAYLOAD
    structured: bool = False
    contexts: Mapping[int, str] = field(default_factory=dict)

    def can(self, flag: TransmissionFlag) -> bool:
        return bool(self.flags & flag)

    @property
    def read_only(self) -> bool:
        return self.can(TransmissionFlag.READ_ONLY)

    @property
    def multi_conn(self) -> bool:
        """A flush on one connection covers the writes of all."""
        return self.can(TransmissionFlag.CAN_MULTI_CONN)


Opening = Callable[[Transport], object]  # is told of a stream as soon as there is one, and may abort it


def unwatched(transport: Transport) -> None:
    """For whoever has no use for it."""


class Handshake:
    """The option phase of one connection. `transport` is the stream to go on with afterwards."""

    def __init__(self, address: Address, security: Security, idle_timeout: float, opening: Opening = unwatched) -> None:
        self._where = str(address)
        plain = connect(address, idle_timeout)
        self.transport: Transport = plain
        opening(plain)
        try:
            self._greet()
            if security.context is not None:
                name = security.name or address.host or "localhost"
                self._start_tls(plain, security.context, name, idle_timeout)
        except BaseException:
            self.transport.close()
            raise

    def go(self, name: str, contexts: Sequence[str]) -> Export:
        """Choose an export and enter transmission. Contexts that the server does not know are left out."""
        if not self._fixed:
            return self._export_name(name)
        structured = self._accepted(Option.STRUCTURED_REPLY)
        agreed = self._set_contexts(name, contexts) if structured and contexts else {}
        replies = self._option(Option.GO, self._info_request(name))
        if replies[-1][0] == Reply.ERR_UNSUP:
            return replace(self._export_name(name), structured=structured, contexts=agreed)
        return replace(self._described(name, replies), structured=structured, contexts=agreed)

    def info(self, name: str) -> Export:
        """What `go` would say, without entering transmission."""
        return self._described(name, self._option(Option.INFO, self._info_request(name)))

    def names(self) -> list[str]:
        """Every export that the server lists; it may have others."""
        replies = self._option(Option.LIST)
        self._demand_ack(f"Listing the exports of {self._where}", replies)
        found = []
        for kind, body in replies:
            if kind == Reply.SERVER:
                length = self._unpack(UINT32, body)[0]
                if length > len(body) - UINT32.size:
                    raise garbage(self._where, "an export's name is longer than the reply it stands in")
                found.append(body[4 : 4 + length].decode(errors="surrogateescape"))
        return found

    def leave(self) -> None:
        """Part without having entered transmission."""
        if self._fixed:
            self.transport.send(OPTION.pack(OPTION_MAGIC, Option.ABORT, 0))

    def _greet(self) -> None:
        magic, version, flags = GREETING.unpack(self._receive(GREETING.size))
        if magic != INIT_MAGIC or version not in (OPTION_MAGIC, OLDSTYLE_MAGIC):
            raise garbage(self._where, "its greeting is not NBD's")
        if version == OLDSTYLE_MAGIC:
            raise VmferryError("unsupported", f"{self._where} speaks the oldstyle NBD handshake only.")
        understood = flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
        self._fixed = bool(flags & HandshakeFlag.FIXED_NEWSTYLE)
        self._no_zeroes = bool(flags & HandshakeFlag.NO_ZEROES)
        self.transport.send(UINT32.pack(understood))

    def _start_tls(self, plain: PlainTransport, context: ssl.SSLContext, name: str, idle_timeout: float) -> None:
        # Options are answered in turn and read to the byte, so nothing that was sent in clear survives the upgrade.
        if not self._fixed or not self._accepted(Option.STARTTLS):
            raise VmferryError(
                "invalid_config",
                f"{self._where} does not offer TLS, which this connection demands.",
                "Turn TLS on in the server, or off for this connection.",
            )
        self.transport = TlsTransport(plain, context, name, self._where, idle_timeout)

    def _accepted(self, option: Option) -> bool:
        return self._option(option)[-1][0] == Reply.ACK

    def _set_contexts(self, name: str, contexts: Sequence[str]) -> dict[int, str]:
        queries = b"".join(self._string(context) for context in contexts)
        data = self._string(name) + UINT32.pack(len(contexts)) + queries
        replies = self._option(Option.SET_META_CONTEXT, data)
        if replies[-1][0] in (Reply.ERR_UNSUP, Reply.ERR_POLICY):
            return {}
        self._demand_ack(f"Asking {self._where} for the block status of export {name!r}", replies)
        agreed: dict[int, str] = {}
        for kind, body in replies:
            if kind == Reply.META_CONTEXT:
                context = body[UINT32.size :].decode(errors="replace")
                if context not in contexts or context in agreed.values():
                    raise garbage(self._where, f"it agreed to the context {context!r} that it was not asked for")
                agreed[self._unpack(UINT32, body)[0]] = context
        return agreed

    def _info_request(self, name: str) -> bytes:
        return self._string(name) + UINT16.pack(1) + UINT16.pack(Info.BLOCK_SIZE)

    def _described(self, name: str, replies: Sequence[tuple[int, bytes]]) -> Export:
        self._demand_ack(f"Opening export {name!r} of {self._where}", replies)
        infos = {self._unpack(UINT16, body)[0]: body[2:] for kind, body in replies if kind == Reply.INFO}
        if Info.EXPORT not in infos:
            raise garbage(self._where, "it did not say how large the export is")
        size, flags = self._unpack(INFO_EXPORT, infos[Info.EXPORT])
        if Info.BLOCK_SIZE not in infos:
            return Export(name, size, flags)
        smallest, _preferred, largest = self._unpack(INFO_BLOCK_SIZE, infos[Info.BLOCK_SIZE])
        if not 1 <= smallest <= 65536 or smallest & (smallest - 1) or largest < smallest:
            raise garbage(self._where, f"block sizes from {smallest} to {largest} are impossible")
        return Export(name, size, flags, smallest, largest)

    def _export_name(self, name: str) -> Export:
        """The option that every server has, and that fails by hanging up."""
        encoded = name.encode(errors="surrogateescape")
        self.transport.send(OPTION.pack(OPTION_MAGIC, Option.EXPORT_NAME, len(encoded)), encoded)
        try:
            size, flags = EXPORT_NAME_REPLY.unpack(self._receive(EXPORT_NAME_REPLY.size))
        except VmferryError as error:
            if error.kind != "network":
                raise
            raise VmferryError(
                "not_found",
                f"{self._where} hung up when asked for export {name!r}.",
                "Most likely it has no export of that name.",
            ) from error
        if not self._no_zeroes:
            self._receive(EXPORT_NAME_PADDING)
        return Export(name, size, flags)

    def _option(self, option: Option, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Every reply as (type, data); the last one is ACK or an error."""
        self.transport.send(OPTION.pack(OPTION_MAGIC, option, len(data)), data)
        replies: list[tuple[int, bytes]] = []
        while True:
            magic, answered, kind, length = OPTION_REPLY.unpack(self._receive(OPTION_REPLY.size))
            too_much = length > MAX_OPTION_REPLY or len(replies) == MAX_OPTION_REPLIES
            if magic != OPTION_REPLY_MAGIC or answered != option or too_much:
                raise garbage(self._where, f"its reply to the option {option.name} is malformed")
            replies.append((kind, self._receive(length)))
            if kind == Reply.ACK or kind & REPLY_IS_ERROR:
                return replies

    def _demand_ack(self, doing: str, replies: Sequence[tuple[int, bytes]]) -> None:
        kind, body = replies[-1]
        if kind != Reply.ACK:
            raise refused_option(doing, kind, body.decode(errors="replace"))

    def _string(self, text: str) -> bytes:
        encoded = text.encode(errors="surrogateescape")
        if len(encoded) > MAX_STRING:
            raise VmferryError("invalid_config", f"{text[:40]!r}… is too long for an NBD name.")
        return UINT32.pack(len(encoded)) + encoded

    def _unpack(self, layout: Struct, body: bytes) -> tuple[int, ...]:
        size = layout.size
        if len(body) < size:
            raise garbage(self._where, "an option reply is too short")
        return layout.unpack_from(body)

    def _receive(self, length: int) -> bytes:
        data = bytearray(length)
        self.transport.fill(memoryview(data))
        return bytes(data)
