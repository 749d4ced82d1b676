# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storage options of an http:// or https:// store: who asks, and whom it believes."""

from __future__ import annotations

import re
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional, Sequence

from ..connection_settings import ConnectionSettings, refused

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # of a header: RFC 9110 §5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What belongs to a request, not to whoever sends it.
_FRAMING = ("connection", "content-length", "content-range", "expect", "host", "te", "transfer-encoding", "upgrade")
_CONDITIONS = ("if", "if-match", "if-none-match", "if-range", "range", "depth", "destination", "overwrite")
_OURS = frozenset(("authorization", *_FRAMING, *_CONDITIONS))


@dataclass(frozen=True)
class DavSettings(ConnectionSettings):
    """Left out, a request carries no credentials at all: neither a `.netrc` nor the URL is asked."""

    token: Optional[str] = field(default=None, repr=False)
    username: Optional[str] = None
    password: Optional[str] = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    client_cert: Optional[str] = None
    client_key: Optional[str] = None

    def _check(self) -> None:
        if self.token and (self.username or self.password):
            raise refused("token", "goes without username and password", "Leave one of the two out.")
        if bool(self.username) != bool(self.password):
            raise refused("username", "and password go together", "Give both, or neither.")
        if self.username and ":" in self.username:
            raise refused("username", "contains a ':', which basic authentication cannot carry", "Use a token.")
        if self.token and not _VALUE.fullmatch(self.token):
            raise refused("token", "contains what no header can carry", "Give the bare token, on one line.")
        if self.client_key and not self.client_cert:
            raise refused("client_key", "goes with client_cert only", "Add client_cert, or leave the key out.")
        for name, value in self.headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(str(value)):
                raise refused("headers", "holds a name or a value that HTTP cannot carry", "See RFC 9110, 5.6.2.")
            if name.lower() in _OURS:
                hint = "Use token, or username and password." if name.lower() == "authorization" else "Leave it out."
                raise refused("headers", f"must not set {name}", hint)

    @property
    def secrets(self) -> Sequence[str]:
        given = (self.token, self.password, *map(str, self.headers.values()))
        return [secret for secret in given if secret]

    def credentials(self) -> Dict[str, str]:
        """Headers that go to the host of the storage URL, and to no other."""
        found = {name: str(value) for name, value in self.headers.items()}
        if self.token:
            found["Authorization"] = f"Bearer {self.token}"
        if self.username:
            pair = f"{self.username}:{self.password}".encode()
            found["Authorization"] = f"Basic {b64encode(pair).decode()}"
        return found

    def tls(self) -> ssl.SSLContext:
        """Raises `invalid_config` where a file of it cannot be used."""
        self.check_ca_path()
        context = ssl.create_default_context(cafile=self.ca_path if self.validate_certs else None)
        if not self.validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert:
            self._identify(context, self.client_cert)
        return context

    def _identify(self, context: ssl.SSLContext, certificate: str) -> None:
        try:
            context.load_cert_chain(certificate, self.client_key, password=_no_password)
        except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
            named = f"{certificate} with client_key {self.client_key}" if self.client_key else certificate
            raise refused(
                "client_cert",
                f"{named} cannot be used",
                "Give a certificate and its key without a passphrase, both in PEM form, on the host that runs the "
                "task.",
            ) from error


def _no_password() -> str:
    """OpenSSL would ask the terminal, and wait there for ever."""
    raise ValueError("the key has a passphrase")
