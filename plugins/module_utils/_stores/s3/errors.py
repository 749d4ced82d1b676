# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What S3 and botocore report, in the words of a store. The one place where their exceptions are known.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and what compatible servers add to them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Dict, Iterator, Optional, Sequence

from ..._aws.errors import BY_CREDENTIALS, Said, refused_role, unanswered, unauthenticated
from ..._errors import VmferryError
from ..._http.answers import (
    BROKEN,
    BUSY,
    BY_STATUS,
    CANNOT,
    CONDITION,
    GARBLED,
    LATE,
    SHORT,
    TOO_LARGE,
    Meaning,
    failure,
    refusal,
)

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_DENIED: Meaning = (
    "permission_denied",
    "access was denied",
    "Grant s3:ListBucket and s3:ListBucketMultipartUploads on this bucket, and s3:GetObject, s3:PutObject, "
    "s3:DeleteObject, s3:AbortMultipartUpload and s3:ListMultipartUploadParts on its objects.",
)
_FULL: Meaning = ("no_space", "the storage is full", "Free space or choose another storage URL.")
_QUOTA: Meaning = ("quota", "a quota is used up", "Raise the quota or choose another storage URL.")
_REGION: Meaning = ("invalid_config", "the bucket is in another region", "Set region to the bucket's own.")
_OTHER_KEY: Meaning = (
    "permission_denied",
    "access was denied, or the object was written with another sse_customer_key",
    "Give the sse_customer_key that it was written with, and grant s3:GetObject.",
)
_KEY_WANTED = "If it was written with sse_customer_key, give that key. Otherwise check region and the credentials."
_KEY_NOT_WANTED = "If it was written without sse_customer_key, leave the key out."
_BY_CODE: Dict[str, Meaning] = {
    "NoSuchBucket": ("not_found", "the bucket does not exist", "Create the bucket, or correct the storage URL."),
    "NoSuchKey": ("not_found", "the object does not exist", ""),
    "NoSuchUpload": ("not_found", "the multipart upload does not exist any more", ""),
    "InvalidBucketName": ("invalid_config", "the bucket's name is not valid", "Correct the storage URL."),
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    **BY_CREDENTIALS,
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "SlowDown": BUSY,
    "SlowDownRead": BUSY,
    "SlowDownWrite": BUSY,
    "ServiceUnavailable": BUSY,
    "Throttling": BUSY,
    "ThrottlingException": BUSY,
    "RequestLimitExceeded": BUSY,
    "TooManyRequests": BUSY,
    "RequestTimeout": LATE,
    "IncompleteBody": ("network", "the server did not receive the whole body", ""),
    "InternalError": BROKEN,
    "BadDigest": GARBLED,
    "XAmzContentSHA256Mismatch": GARBLED,
    "XAmzContentChecksumMismatch": GARBLED,
    "OperationAborted": ("busy", "another operation on the same object or bucket is under way", "Try again later."),
    "PreconditionFailed": CONDITION,
    "ConditionalRequestConflict": CONDITION,
    "EntityTooLarge": TOO_LARGE,
    "EntityTooSmall": ("internal", "a part is smaller than the server takes", ""),
    "QuotaExceeded": _QUOTA,
    "XMinioAdminBucketQuotaExceeded": _QUOTA,
    "XMinioStorageFull": _FULL,
    "InsufficientStorage": _FULL,
    "InvalidRange": SHORT,
    "InvalidStorageClass": ("invalid_config", "the server has no such storage_class", "Choose one that it has."),
    "InvalidObjectState": (
        "unsupported",
        "the object is archived and has to be restored first",
        "Have the bucket restore it, for example with: aws s3api restore-object.",
    ),
    "NotImplemented": CANNOT,
}
_BY_STATUS: Dict[int, Meaning] = {
    **BY_STATUS,
    301: _REGION,
    401: unauthenticated("the credentials were refused"),
    403: _DENIED,
    404: ("not_found", "it does not exist", ""),
    507: _FULL,
}


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
        raise failure(error, doing, _explained) from error


def _from_answer(error: ClientError, doing: str, secrets: Sequence[str], customer_key: Optional[bool]) -> VmferryError:
    said = Said.of(error, secrets)
    return refusal(_answer_meaning(said, customer_key), doing, said.retry_after)


def _answer_meaning(said: Said, customer_key: Optional[bool]) -> Meaning:
    if role := refused_role(said):
        return role
    if customer_key and said.code in ("AccessDenied", "403"):
        return _OTHER_KEY
    if said.code in _BY_CODE:
        return _BY_CODE[said.code]
    if said.status in _BY_STATUS:
        return _BY_STATUS[said.status]
    if said.status >= 500:
        return BROKEN
    reason = f"the server refused it with {said.words}"
    if said.status == 400 and customer_key is not None:
        return "invalid_config", reason, _KEY_NOT_WANTED if customer_key else _KEY_WANTED
    return "internal", reason, "Check the storage options."


def _explained(error: Exception) -> Meaning:
    return unanswered(error, "S3", "the storage options")
