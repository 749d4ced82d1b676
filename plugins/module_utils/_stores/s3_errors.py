# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What S3 and botocore report, in the words of a store. The one place where their exceptions are known.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and what compatible servers add to them.
"""

from __future__ import annotations

from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from .._errors import Kind, VmferryError
from .s3_certificates import refused_certificate

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_Meaning = Tuple[Kind, str, str]
_CREDENTIALS = "Check access_key, secret_key, session_token or profile."
_DENIED: _Meaning = (
    "permission_denied",
    "access was denied",
    "Grant s3:ListBucket and s3:ListBucketMultipartUploads on this bucket, and s3:GetObject, s3:PutObject, "
    "s3:DeleteObject, s3:AbortMultipartUpload and s3:ListMultipartUploadParts on its objects.",
)
_BUSY: _Meaning = ("rate_limited", "the server asks to slow down", "Lower parallel, or try again later.")
_BROKEN: _Meaning = ("network", "the server reported an error of its own", "Try again later.")
_GARBLED: _Meaning = ("checksum_mismatch", "the server received other bytes than were sent", "Check the network path.")
_FULL: _Meaning = ("no_space", "the storage is full", "Free space or choose another storage URL.")
_QUOTA: _Meaning = ("quota", "a quota is used up", "Raise the quota or choose another storage URL.")
_CONDITION: _Meaning = ("conflict", "the object exists already or has changed since it was read", "")
_REGION: _Meaning = ("invalid_config", "the bucket is in another region", "Set region to the bucket's own.")
_SHORT: _Meaning = ("checksum_mismatch", "the object ends before the range that was expected", "")
_CANNOT: _Meaning = ("unsupported", "the server does not implement this", "")
_OTHER_KEY: _Meaning = (
    "permission_denied",
    "access was denied, or the object was written with another sse_customer_key",
    "Give the sse_customer_key that it was written with, and grant s3:GetObject.",
)
_KEY_WANTED = "If it was written with sse_customer_key, give that key. Otherwise check region and the credentials."
_KEY_NOT_WANTED = "If it was written without sse_customer_key, leave the key out."
_LATE: _Meaning = ("timeout", "the server gave up waiting for the data", "Try again later.")


def _signature(reason: str, hint: str = _CREDENTIALS) -> _Meaning:
    return "unauthenticated", reason, hint


_BY_CODE: Dict[str, _Meaning] = {
    "NoSuchBucket": ("not_found", "the bucket does not exist", "Create the bucket, or correct the storage URL."),
    "NoSuchKey": ("not_found", "the object does not exist", ""),
    "NoSuchUpload": ("not_found", "the multipart upload does not exist any more", ""),
    "InvalidBucketName": ("invalid_config", "the bucket's name is not valid", "Correct the storage URL."),
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "InvalidAccessKeyId": _signature("the access key is not known"),
    "SignatureDoesNotMatch": _signature("the secret key does not match the access key"),
    "ExpiredToken": _signature("the session token has expired", "Renew the credentials."),
    "InvalidToken": _signature("the session token is not valid"),
    "TokenRefreshRequired": _signature("the session token has to be renewed", "Renew the credentials."),
    "RequestTimeTooSkewed": _signature("this machine's clock differs from the server's", "Set the clock."),
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "SlowDown": _BUSY,
    "SlowDownRead": _BUSY,
    "SlowDownWrite": _BUSY,
    "ServiceUnavailable": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "TooManyRequests": _BUSY,
    "RequestTimeout": _LATE,
    "IncompleteBody": ("network", "the server did not receive the whole body", ""),
    "InternalError": _BROKEN,
    "BadDigest": _GARBLED,
    "XAmzContentSHA256Mismatch": _GARBLED,
    "XAmzContentChecksumMismatch": _GARBLED,
    "OperationAborted": ("busy", "another operation on the same object or bucket is under way", "Try again later."),
    "PreconditionFailed": _CONDITION,
    "ConditionalRequestConflict": _CONDITION,
    "EntityTooLarge": ("quota", "the object or part is larger than the server takes", ""),
    "EntityTooSmall": ("internal", "a part is smaller than the server takes", ""),
    "QuotaExceeded": _QUOTA,
    "XMinioAdminBucketQuotaExceeded": _QUOTA,
    "XMinioStorageFull": _FULL,
    "InsufficientStorage": _FULL,
    "InvalidRange": _SHORT,
    "NotImplemented": _CANNOT,
}
_BY_STATUS: Dict[int, _Meaning] = {
    301: _REGION,
    401: _signature("the credentials were refused"),
    403: _DENIED,
    404: ("not_found", "it does not exist", ""),
    405: _CANNOT,
    408: _LATE,
    409: _CONDITION,
    412: _CONDITION,
    413: ("quota", "the object or part is larger than the server takes", ""),
    416: _SHORT,
    429: _BUSY,
    501: _CANNOT,
    503: _BUSY,
    507: _FULL,
}
_RETRYABLE: Mapping[str, bool] = {"checksum_mismatch": True}  # a part: the wire may have flipped it
_PERMANENT = (_SHORT,)


@contextmanager
def translated(doing: str, secrets: Sequence[str] = (), customer_key: Optional[bool] = None) -> Iterator[None]:
    """`doing` names the verb, the URL and the endpoint. `secrets` are blotted out of what the server says.

    Where an object is read, `customer_key` says whether with a key: servers do not say that this is what they mind.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _from_answer(error, doing, secrets, customer_key) from error
    except (BotoCoreError, ResponseParserError, HTTPError, OSError) as error:
        raise _from_failure(error, doing) from error


def _from_answer(error: ClientError, doing: str, secrets: Sequence[str], customer_key: Optional[bool]) -> VmferryError:
    meaning = _answer_meaning(error, secrets, customer_key)
    kind, reason, hint = meaning
    return VmferryError(
        kind,
        f"{doing} failed: {reason}.",
        hint,
        retryable=None if meaning in _PERMANENT else _RETRYABLE.get(kind),
        retry_after=_retry_after(error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})),
    )


def _answer_meaning(error: ClientError, secrets: Sequence[str], customer_key: Optional[bool]) -> _Meaning:
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if customer_key and code in ("AccessDenied", "403"):
        return _OTHER_KEY
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return _BROKEN
    message = _blotted(str(said.get("Message", "")), secrets)
    reason = f"the server refused it with {code or status} ({message})"
    if status == 400 and customer_key is not None:
        return "invalid_config", reason, _KEY_NOT_WANTED if customer_key else _KEY_WANTED
    return "internal", reason, "Check the storage options."


def _blotted(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "…")
    return " ".join(text.split())[:200].rstrip(".")


def _retry_after(headers: Mapping[str, str]) -> Optional[float]:
    """Seconds, from either form of RFC 9110 §10.2.3."""
    value = headers.get("retry-after", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time()) if value else None
    except (TypeError, ValueError):
        return None


def _from_failure(error: Exception, doing: str) -> VmferryError:
    certificate = refused_certificate(error)
    kind, reason, hint = certificate or _failure(error)
    return VmferryError(kind, f"{doing} failed: {reason}.", hint, retryable=False if certificate else None)


def _failure(error: Exception) -> _Meaning:
    from botocore import exceptions as sdk
    from botocore.parsers import ResponseParserError
    from urllib3 import exceptions as http

    if isinstance(error, sdk.NoCredentialsError):
        return _signature("no credentials were found", "Give access_key and secret_key, or profile.")
    if isinstance(error, sdk.PartialCredentialsError):
        return _signature("the credentials that were found are not complete")
    if isinstance(error, (sdk.CredentialRetrievalError, sdk.TokenRetrievalError, sdk.SSOError)):
        return _signature("the credentials could not be obtained")
    if isinstance(error, sdk.ProfileNotFound):
        reason = f"the AWS profile {error.kwargs['profile']} does not exist"
        return "invalid_config", reason, "Check profile and the AWS configuration files."
    if isinstance(error, (sdk.ConnectTimeoutError, sdk.ReadTimeoutError, http.TimeoutError, TimeoutError)):
        return "timeout", "the server did not answer in time", "Check endpoint_url and the network."
    if isinstance(error, sdk.EndpointConnectionError):
        return "network", "no connection could be made", "Check endpoint_url and the network."
    if isinstance(error, (sdk.HTTPClientError, http.HTTPError, OSError, sdk.IncompleteReadError)):
        return "network", "the connection broke", "Check the network."
    if isinstance(error, ResponseParserError):
        return "network", "the answer was not S3's", "Check that endpoint_url is an S3 server."
    if isinstance(error, (sdk.ParamValidationError, sdk.InvalidEndpointConfigurationError, sdk.InvalidRegionError)):
        return "invalid_config", f"botocore refused the request ({type(error).__name__})", "Check the storage options."
    return "internal", f"botocore raised {type(error).__name__}", ""
