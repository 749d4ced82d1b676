# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS towards vCenter and ESXi: against authorities, or against one certificate that the user knows.

pyVmomi verifies nothing where it is given no context and the host is called localhost, and takes any certificate where
its own `thumbprint` is combined with certificates that are not verified. So a context is made here, always.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from typing import Type

from ..._errors import VmferryError

SIGNS_OF_SHA1, SIGNS_OF_SHA256 = 40, 64  # of a thumbprint in hex
HOW_TO_READ_ONE = (
    "openssl s_client -connect {address} </dev/null | openssl x509 -noout -fingerprint -sha256, run where the "
    "connection can be trusted, shows it."
)


class WrongCertificate(ssl.SSLError):
    """The server has another certificate than the one that is pinned."""

    def __init__(self, offered: str) -> None:
        super().__init__(f"the server's certificate has the thumbprint {offered}")
        self.offered = offered


def trusting(validate: bool, ca_path: str, thumbprint: str) -> ssl.SSLContext:
    """`thumbprint` (SHA-256, hex in lower case) stands alone: then neither names, authorities nor dates count."""
    if thumbprint:
        return pinned(thumbprint)
    if not validate:
        return unverified()
    try:
        return ssl.create_default_context(cafile=ca_path or None)
    except ssl.SSLError as error:
        raise _unusable(ca_path, "holds no certificates in PEM form") from error
    except OSError as error:
        raise _unusable(ca_path, f"cannot be read ({error.strerror})") from error


def pinned(thumbprint: str) -> ssl.SSLContext:
    """Compares right after each handshake, before a byte of a request is sent. Hex in lower case: of SHA-256, or of
    SHA-1, which older servers tell of theirs (that two certificates have the same is nothing that a stranger can make).

    That the server owns the key of its certificate is proved by the handshake itself (RFC 8446, 4.4.3).
    """
    context = unverified()
    context.sslsocket_class = _pinned_socket(thumbprint)
    return context


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _pinned_socket(thumbprint: str) -> Type[ssl.SSLSocket]:
    class PinnedSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            hashed = hashlib.new("sha1" if len(thumbprint) == SIGNS_OF_SHA1 else "sha256", usedforsecurity=False)
            hashed.update(self.getpeercert(True) or b"")
            offered = hashed.hexdigest()
            if not hmac.compare_digest(offered, thumbprint):
                raise WrongCertificate(":".join(offered[at : at + 2] for at in range(0, len(offered), 2)).upper())

    return PinnedSocket


def _unusable(path: str, why: str) -> VmferryError:
    hint = "Give a file on the host that runs the task."
    return VmferryError("invalid_config", f"vsphere.ca_path {path} {why}.", hint)
