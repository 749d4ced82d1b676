# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an HTTP server and urllib3 report, in the words of a store. The one place where those exceptions are known.

Statuses: https://www.rfc-editor.org/rfc/rfc9110#section-15 and https://www.rfc-editor.org/rfc/rfc4918#section-11
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Dict, Iterator, Mapping
from urllib.parse import urlsplit

from ..._errors import VmferryError
from ..._http.answers import BUSY, BY_STATUS, CONNECTION_BROKE, Meaning, failure, refusal, unreached

_ADDRESS = "the storage URL"
_BROKEN: Meaning = ("network", "the server, or a proxy before it, reported an error of its own", "Try again later.")
CANNOT: Meaning = (
    "unsupported",
    "the server does not do this",
    "A store that is written to or listed has to be a WebDAV server: PUT, MOVE, DELETE, MKCOL and PROPFIND.",
)
_BY_STATUS: Dict[int, Meaning] = {
    **BY_STATUS,
    400: ("invalid_config", "the server did not accept the request", "Check the storage URL and the headers."),
    401: ("unauthenticated", "the credentials were refused", "Check token, username, password and client_cert."),
    403: ("permission_denied", "access was denied", "Grant read and write access below the storage URL."),
    404: ("not_found", "it does not exist", "Correct the storage URL."),
    405: CANNOT,
    407: ("unauthenticated", "the proxy wants credentials", "Put them into the proxy's URL in the environment."),
    409: ("not_found", "the folder above it does not exist", "Create it, or correct the storage URL."),
    410: ("not_found", "it does not exist", "Correct the storage URL."),
    411: CANNOT,
    413: ("quota", "it is larger than the server takes", "Raise the server's limit, or choose another store."),
    423: ("busy", "another request holds a lock on it", "Try again later."),
    425: BUSY,
    431: ("invalid_config", "the server takes no headers of this size", "Shorten metadata or headers."),
    501: CANNOT,
    507: ("no_space", "the storage is full", "Free space or choose another storage URL."),
    511: ("unauthenticated", "the network wants a login first", f"Check {_ADDRESS} and the network."),
}


def refused(status: int, headers: Mapping[str, str], doing: str) -> VmferryError:
    """The error of an answer. What the server wrote into its body is nobody's: it may repeat the request's secrets."""
    return refusal(_meaning(status, headers), doing, headers.get("Retry-After", ""))


def _meaning(status: int, headers: Mapping[str, str]) -> Meaning:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 300 <= status < 400:
        host = urlsplit(headers.get("Location", "")).netloc.rpartition("@")[2] or "another place"
        hint = "Write the address that is meant into the storage URL."
        return "unsupported", f"the server redirects to {host[:100]!a}, and what writes is not redirected", hint
    if status >= 500:
        return _BROKEN
    return "internal", f"the server answered with the status {status}", "Check the storage URL."


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """`doing` names the verb and the URL."""
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (HTTPError, OSError) as error:
        raise failure(error, doing, _explained, _ADDRESS) from error


def _explained(error: Exception) -> Meaning:
    from urllib3 import exceptions as http

    if isinstance(error, http.LocationValueError):
        return "invalid_config", "the address cannot be parsed", "Correct the storage URL."
    if isinstance(error, http.ProxyError):
        return "network", "the proxy of the environment could not be used", "Check https_proxy and no_proxy."
    if no_answer := unreached(error, _ADDRESS):
        return no_answer
    if isinstance(error, http.SSLError):
        return "network", "no secure connection could be made", "Check the storage URL, client_cert and the server."
    return CONNECTION_BROKE
