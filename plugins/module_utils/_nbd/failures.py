# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server says, or fails to say, as a VmferryError."""

from __future__ import annotations

import socket
import ssl

from .._errors import Kind, VmferryError
from .protocol import Errno, Reply

_ERRNO: dict[int, tuple[Kind, str]] = {
    Errno.EPERM: ("permission_denied", "the server does not permit it"),
    Errno.EIO: ("internal", "the server met an input/output error"),
    Errno.ENOMEM: ("internal", "the server is out of memory"),
    Errno.EINVAL: ("internal", "the server calls the request invalid"),
    Errno.ENOSPC: ("no_space", "no space is left on the server"),
    Errno.EOVERFLOW: ("internal", "the server calls the request too large"),
    Errno.ENOTSUP: ("unsupported", "the server does not support it"),
    Errno.ESHUTDOWN: ("network", "the server is shutting down"),
}
_MAY_PASS = {Errno.EIO, Errno.ENOMEM, Errno.ESHUTDOWN}  # the same request may go through later

_OPTION: dict[int, tuple[Kind, str, str]] = {
    Reply.ERR_POLICY: ("permission_denied", "the server does not permit it", ""),
    Reply.ERR_TLS_REQD: ("invalid_config", "the server demands TLS", "Configure TLS for this connection."),
    Reply.ERR_UNKNOWN: ("not_found", "the server has no such export", "Ask the server for the names it exports."),
    Reply.ERR_SHUTDOWN: ("network", "the server is shutting down", ""),
}


def garbage(where: str, what: str) -> VmferryError:
    return VmferryError(
        "internal",
        f"{where} broke the NBD protocol: {what}.",
        "The server has a defect, or something else than an NBD server answered.",
    )


def refused_command(doing: str, errno: int, message: str) -> VmferryError:
    """`errno` is the protocol's; an unknown one counts as EINVAL, as the specification has it."""
    kind, text = _ERRNO.get(errno, _ERRNO[Errno.EINVAL])
    said = f" ({message.strip()})" if message.strip() else ""
    return VmferryError(kind, f"{doing} failed: {text}{said}.", retryable=errno in _MAY_PASS)


def refused_option(doing: str, reply: int, message: str) -> VmferryError:
    kind, text, hint = _OPTION.get(reply, ("unsupported", f"the server refused (reply {reply:#x})", ""))
    said = f" ({message.strip()})" if message.strip() else ""
    return VmferryError(kind, f"{doing} failed: {text}{said}.", hint)


def failed_call(doing: str, error: OSError) -> VmferryError:
    """An operating system's or TLS library's error on a socket."""
    kind: Kind = "network"
    hint = ""
    if isinstance(error, ssl.SSLCertVerificationError):
        kind, hint = (
            "unauthenticated",
            "Give the CA that signed the server's certificate, and the name it was made for.",
        )
    elif isinstance(error, (TimeoutError, BlockingIOError, socket.timeout)):
        # A kernel timeout (SO_RCVTIMEO) ends a blocking call with EAGAIN, which Python calls BlockingIOError.
        return VmferryError("timeout", f"{doing} failed: the server did not answer in time.")
    elif isinstance(error, PermissionError):
        kind = "permission_denied"
    reason = error.strerror or str(error) or type(error).__name__
    return VmferryError(kind, f"{doing} failed: {reason}.", hint)
