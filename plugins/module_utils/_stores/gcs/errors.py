# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Cloud Storage, google-auth and requests report, in the words of a store: the one place that knows them.

Reasons: https://cloud.google.com/storage/docs/json_api/v1/status-codes.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Mapping, Sequence, Tuple

from ..._errors import VmferryError
from ..._http.answers import (
    BROKEN,
    BUSY,
    BY_STATUS,
    CONNECTION_BROKE,
    GARBLED,
    LATE,
    Meaning,
    blotted,
    failure,
    refusal,
    unreached,
)

_CREDENTIALS = "Check service_account_file, service_account_contents, access_token or the machine's own credentials."
_DENIED: Meaning = (
    "permission_denied",
    "access was denied",
    "Grant storage.objects.list, get, create and delete on this bucket, as the role Storage Object User does.",
)
_HELD: Meaning = (
    "permission_denied",
    "a hold or a retention policy keeps the object",
    "Use a bucket without a retention policy and without default holds, or wait until the object is released.",
)
_QUOTA: Meaning = ("quota", "a quota is used up", "Raise the quota or choose another storage URL.")
_CANNOT: Meaning = ("unsupported", "the server does not implement this", "Check endpoint_url.")
_REFUSED: Meaning = ("unauthenticated", "the credentials were refused", _CREDENTIALS)
_BILLING: Meaning = (
    "permission_denied",
    "the project's billing account is disabled",
    "Enable billing for the project of the bucket.",
)
_PAYER: Meaning = (
    "invalid_config",
    "the bucket's requesters pay, and the request names no project to bill",
    "Set user_project to a project that you may use.",
)
_PAYER_DENIED: Meaning = (
    "permission_denied",
    "the project in user_project may not be billed",
    "Grant serviceusage.services.use on that project, or name another one.",
)
_NO_BUCKET: Meaning = ("not_found", "the bucket does not exist", "Create the bucket, or correct the storage URL.")
_NO_OBJECT: Meaning = ("not_found", "the object does not exist", "")

_BY_REASON: Dict[str, Meaning] = {
    "accountDisabled": _BILLING,
    "billingDisabled": _BILLING,
    "objectUnderActiveHold": _HELD,
    "retentionPolicyNotMet": _HELD,
    "quotaExceeded": _QUOTA,
    "dailyLimitExceeded": _QUOTA,
    "rateLimitExceeded": BUSY,
    "userRateLimitExceeded": BUSY,
    "uploadBrokenConnection": LATE,
    "UserProjectAccessDenied": _PAYER_DENIED,
    "UserProjectMissing": _PAYER,
}
_BY_STATUS: Dict[int, Meaning] = {
    **BY_STATUS,
    401: _REFUSED,
    403: _DENIED,
    405: _CANNOT,
    501: _CANNOT,
    507: _QUOTA,
}


@dataclass(frozen=True)
class Answer:
    """One that is no success. `body` is at most a few kilobytes, JSON or not."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def answered(answer: Answer, doing: str, *, about_bucket: bool, secrets: Sequence[str]) -> VmferryError:
    """`about_bucket`: that something is not found can only be the bucket."""
    return refusal(_meaning(answer, about_bucket, secrets), doing, answer.headers.get("Retry-After", ""))


def _meaning(answer: Answer, about_bucket: bool, secrets: Sequence[str]) -> Meaning:
    reason, message = _said(answer.body)
    lowered = message.lower()
    if reason in _BY_REASON:
        return _BY_REASON[reason]
    if answer.status == 400 and "requester pays" in lowered:
        return _PAYER
    if answer.status == 400 and "match calculated" in lowered:
        return GARBLED
    if answer.status == 404:
        return _NO_BUCKET if about_bucket else _NO_OBJECT
    if answer.status in _BY_STATUS:
        return _BY_STATUS[answer.status]
    if answer.status >= 500:
        return BROKEN
    if 300 <= answer.status < 400:
        return "unsupported", "the server sent the request elsewhere", "Write the address itself into endpoint_url."
    said = blotted(f"{reason or answer.status} ({message})", secrets)
    return "internal", f"the server refused it with {said}", "Check the storage options."


def _said(body: bytes) -> Tuple[str, str]:
    """Reason and message; empty where the body is not an error of the JSON API."""
    try:
        error: Any = json.loads(body)["error"]
        first = error.get("errors", [{}])[0]
        return str(first.get("reason", "")), str(error.get("message", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", ""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """`doing` names the verb, the URL and the endpoint."""
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (GoogleAuthError, RequestException, HTTPError, OSError) as error:
        # What google-auth quotes of an answer may be a credential, so none of it is repeated or chained.
        cause = None if isinstance(error, GoogleAuthError) else error
        raise failure(error, doing, _explained) from cause


def _explained(error: Exception) -> Meaning:
    from google.auth import exceptions as auth

    if isinstance(error, auth.DefaultCredentialsError):
        return (
            "unauthenticated",
            "no credentials were found",
            "Give service_account_file or access_token, or set auth_kind to anonymous.",
        )
    if isinstance(error, auth.TransportError):
        return "network", "the service that hands out access tokens could not be reached", "Check the network."
    if isinstance(error, auth.GoogleAuthError):
        return "unauthenticated", "no access token could be obtained", _CREDENTIALS
    if no_answer := unreached(error):
        return no_answer
    if isinstance(error, ValueError):  # among them an answer that is no JSON, and a URL that is none
        return "network", "the answer was not Cloud Storage's", "Check that endpoint_url is a Cloud Storage server."
    return CONNECTION_BROKE
