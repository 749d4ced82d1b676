# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to whoever serves the bytes of disks: the server of the API itself, or the ESXi hosts that a lease names.

They are trusted as the API is. A host with a certificate that nobody vouches for is trusted too where the lease, which
came over the verified connection to the API, tells the thumbprint of that certificate
(`HttpNfcLeaseDeviceUrl.sslThumbprint` of the vSphere Web Services API).
"""

from __future__ import annotations

import re
import socket
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Callable, Sequence, Tuple
from urllib.parse import urlsplit

from ..._errors import VmferryError
from .faults import of_connection
from .session import CALL_LIMIT, Session
from .settings import HTTPS, VsphereSettings, host_and_port
from .tls import SIGNS_OF_SHA1, SIGNS_OF_SHA256, pinned, trusting, unverified

ANY_HOST = "*"  # how an ESXi host names itself in a lease
# Seconds between two bytes: zeros are not sent, and a host may have terabytes of them to look through. How long that
# may take is for the job to say (idle_timeout), which closes what it waits for.
SILENCE = 3600.0
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 8}  # a dead host is told from a silent one
MAP = "Disks are read from the ESXi hosts themselves, on port 443. vsphere.host_map gives the addresses of such names."
UNTRUSTED = (
    "Neither does an authority vouch for it, nor has it the thumbprint vSphere tells. Set vsphere.ca_path to a file "
    "with the authority of the ESXi hosts as well, or have vCenter connect the host anew if its certificate is new."
)


class DiskServers:
    """Threads may share it; each connection is for one of them."""

    def __init__(self, settings: VsphereSettings, session: Session) -> None:
        self._settings, self._session = settings, session

    def connect(self, url: str, thumbprint: str = "") -> Tuple[HTTPSConnection, str]:
        """A connection that is open, and the path with the query. `thumbprint`: as the API told it, in hex.

        To the API's own server, and to no other, every request carries the session's cookie. Raises `VmferryError`.
        """
        place = self.host_of(url)
        name, port = place
        ours = place == (self._settings.hostname.lower(), self._settings.port)
        address, mapped = self._address(name, port)
        connection = DiskConnection(
            name,
            port,
            (address, mapped),
            (self._settings.proxy_host, self._settings.proxy_port),
            self._contexts(ours, thumbprint),
            self._session.cookie if ours else _no_cookie,
        )
        try:
            connection.connect()
        except VmferryError:
            raise
        except (OSError, HTTPException) as error:
            connection.close()
            raise self._explained(error, f"{name}:{port}", ours) from error
        parts = urlsplit(url)
        return connection, f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"

    def host_of(self, url: str) -> Tuple[str, int]:
        """Name and port of the server that the URL means; in lower case."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            text = f"vSphere offers the disk at {parts.scheme or 'no scheme'}://{parts.netloc}, which is not encrypted."
            raise VmferryError("unsupported", text, "Have the host serve its disks over HTTPS, which is its default.")
        if parts.hostname == ANY_HOST:
            return self._settings.hostname.lower(), self._settings.port
        return parts.hostname, parts.port or HTTPS

    def _address(self, name: str, port: int) -> Tuple[str, int]:
        """As `host_map` has it."""
        for known, address in self._settings.host_map.items():
            if known.lower() == name:
                host, other = host_and_port(address)
                return host, other or port
        return name, port

    def _contexts(self, ours: bool, thumbprint: str) -> Sequence[ssl.SSLContext]:
        """Any of which the server may satisfy, the first to be tried first."""
        given = self._settings
        if ours:
            return [trusting(given.validate_certs, given.ca_path, given.thumbprint)]
        if not given.validate_certs and not given.thumbprint:
            return [unverified()]
        digest = re.sub(r"[^0-9a-f]", "", thumbprint.lower())
        told = [pinned(digest)] if len(digest) in (SIGNS_OF_SHA1, SIGNS_OF_SHA256) else []
        # A pin is of the API's certificate alone, so it says nothing of this one.
        return [*told, trusting(True, "" if given.thumbprint else given.ca_path, "")]

    def _explained(self, error: Exception, address: str, ours: bool) -> VmferryError:
        found = of_connection(error, "Reaching the server of the disks", address)
        if ours:
            return found
        untrusted = isinstance(error, ssl.SSLCertVerificationError)
        hint = UNTRUSTED if untrusted else MAP
        return VmferryError(found.kind, found.message, hint, retryable=found.retryable)


class DiskConnection(HTTPSConnection):
    """To `address`, as the server `name`: that is whom the certificate has to be for."""

    def __init__(
        self,
        name: str,
        port: int,
        address: Tuple[str, int],
        proxy: Tuple[str, int],
        contexts: Sequence[ssl.SSLContext],
        cookie: Callable[[], str],
    ) -> None:
        host, at = proxy if proxy[0] else address
        super().__init__(host, at, timeout=CALL_LIMIT, context=contexts[0])
        if proxy[0]:
            self.set_tunnel(*address)
        self._name, self._at, self._contexts, self._cookie = name, port, contexts, cookie

    def connect(self) -> None:
        refused: ssl.SSLError | None = None
        for context in self._contexts:
            HTTPConnection.connect(self)  # that of HTTPS would verify the name that it connects to
            try:
                self.sock = context.wrap_socket(self.sock, server_hostname=self._name)
            except ssl.SSLError as error:
                self.close()
                refused = error
                continue
            except OSError:
                self.close()
                raise
            self._outlast_silence()
            return
        raise refused or ssl.SSLError(f"nothing of {self._name} can be trusted")

    def _outlast_silence(self) -> None:
        self.sock.settimeout(SILENCE)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE.items():
            if hasattr(socket, option):
                self.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        cookie = self._cookie()
        super().putrequest(method, url, skip_host=True, skip_accept_encoding=True)
        if not skip_host:
            host = f"[{self._name}]" if ":" in self._name else self._name
            self.putheader("Host", host if self._at == HTTPS else f"{host}:{self._at}")
        if cookie:
            self.putheader("Cookie", cookie)


def _no_cookie() -> str:
    return ""
