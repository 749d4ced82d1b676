# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an HTTP server's answer, or that there is none, means to every store; each adds what only its server says.

Statuses: https://www.rfc-editor.org/rfc/rfc9110#section-15
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from time import time
from typing import Callable, Dict, Optional, Sequence, Tuple, Type

from .._errors import Kind, VmferryError
from .certificates import refused_certificate
from .error_layers import layers

Meaning = Tuple[Kind, str, str]  # with its reason and a hint

BUSY: Meaning = ("rate_limited", "the server asks to slow down", "Lower parallel, or try again later.")
BROKEN: Meaning = ("network", "the server reported an error of its own", "Try again later.")
LATE: Meaning = ("timeout", "the server gave up waiting for the data", "Try again later.")
GARBLED: Meaning = ("checksum_mismatch", "the server received other bytes than were sent", "Check the network path.")
CONDITION: Meaning = ("conflict", "the object exists already or has changed since it was read", "")
SHORT: Meaning = ("checksum_mismatch", "the object ends before the range that was expected", "")
TOO_LARGE: Meaning = ("quota", "the object or part is larger than the server takes", "")
CANNOT: Meaning = ("unsupported", "the server does not implement this", "")
CONNECTION_BROKE: Meaning = ("network", "the connection broke", "Check the network.")

BY_STATUS: Dict[int, Meaning] = {
    405: CANNOT,
    408: LATE,
    409: CONDITION,
    412: CONDITION,
    413: TOO_LARGE,
    416: SHORT,
    429: BUSY,
    501: CANNOT,
    503: BUSY,
}


def refusal(meaning: Meaning, doing: str, wait: str = "", made: Type[VmferryError] = VmferryError) -> VmferryError:
    """The error of an answer. `doing` names the verb and the URL, `wait` is its Retry-After."""
    kind, reason, hint = meaning
    sent_again = True if meaning == GARBLED else None  # the wire may have flipped it
    return made(kind, f"{doing} failed: {reason}.", hint, retryable=sent_again, retry_after=_seconds(wait))


def _seconds(wait: str) -> Optional[float]:
    """From either form of RFC 9110 §10.2.3."""
    if wait.isdigit():
        return float(wait)
    try:
        return max(0.0, parsedate_to_datetime(wait).timestamp() - time()) if wait else None
    except (TypeError, ValueError):
        return None


def blotted(text: str, secrets: Sequence[str]) -> str:
    """What a server says, in one short line and without what it repeats of the credentials."""
    for secret in secrets:
        text = text.replace(secret, "…")
    return " ".join(text.split())[:200].rstrip(".")


def failure(
    error: Exception, doing: str, explain: Callable[[Exception], Meaning], address: str = "endpoint_url"
) -> VmferryError:
    """The error of a request without an answer. `address`: what the user gave as the server's; `explain` says what is
    left to say once it is no certificate.
    """
    certificate = refused_certificate(error)
    if certificate is None:
        return refusal(explain(error), doing)
    kind, reason, hint = certificate
    return VmferryError(kind, f"{doing} failed: {reason}.", hint.format(address=address), retryable=False)


def _to_whom(error: Exception) -> str:
    """Host and port that were tried, of a server or a proxy; '' where urllib3 does not tell."""
    tried = vars(error).get("conn") or vars(error).get("pool")  # older ones know it as the latter
    host, port = getattr(tried, "host", ""), getattr(tried, "port", "")
    if not host:
        return ""
    return f" to {f'[{host}]' if ':' in host else host}:{port}"


def unreached(error: Exception, address: str = "endpoint_url") -> Optional[Meaning]:
    """None where the server was there and answered in time."""
    from urllib3 import exceptions as http

    found = tuple(layers(error))
    refused = [each for each in found if isinstance(each, http.NewConnectionError)]  # which older ones call a timeout
    if refused:
        return "network", f"no connection could be made{_to_whom(refused[0])}", f"Check {address} and the network."
    if any(isinstance(each, (http.TimeoutError, TimeoutError)) for each in found):
        return "timeout", "the server did not answer in time", f"Check {address} and the network."
    return None
