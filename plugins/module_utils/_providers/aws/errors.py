# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What EC2 and EBS direct report, in the words of a provider. The one place where their exceptions are known.

Codes: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html and
https://docs.aws.amazon.com/ebs/latest/userguide/error-retries.html
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Dict, Iterator, Sequence

from ..._aws.errors import BY_CREDENTIALS, Said, refused_role, unanswered, unauthenticated
from ..._errors import Kind
from ..._http.answers import BROKEN, BUSY, Meaning, failure, refusal

_QUOTA: Meaning = ("quota", "a limit of the account is reached", "Ask AWS to raise it, or remove what is not needed.")
_BY_CODE: Dict[str, Meaning] = {
    **BY_CREDENTIALS,
    "AuthFailure": unauthenticated("the credentials were refused"),
    "UnrecognizedClientException": unauthenticated("the access key or the session token is not known"),
    "InvalidSignatureException": unauthenticated("the secret key does not match the access key"),
    "ExpiredTokenException": BY_CREDENTIALS["ExpiredToken"],
    "RequestExpired": BY_CREDENTIALS["RequestTimeTooSkewed"],
    "RequestLimitExceeded": BUSY,
    "RequestThrottledException": BUSY,
    "ThrottlingException": BUSY,
    "ConcurrentLimitExceededException": BUSY,
    "Throttling": BUSY,
    "InternalServerException": BROKEN,
    "InternalError": BROKEN,
    "Unavailable": BROKEN,
    "ServiceQuotaExceededException": _QUOTA,
    "SnapshotCreationPerVolumeRateExceeded": BUSY,
    "ConcurrentSnapshotLimitExceeded": _QUOTA,
    "SnapshotLimitExceeded": _QUOTA,
    "PendingSnapshotLimitExceeded": _QUOTA,
    "InstanceLimitExceeded": _QUOTA,
    "VcpuLimitExceeded": _QUOTA,
    "VolumeLimitExceeded": _QUOTA,
    "InsufficientInstanceCapacity": (
        "busy",
        "AWS has no room for an instance of this type in its zone now",
        "Try again later, or give it another type.",
    ),
    "IncorrectInstanceState": ("conflict", "the instance is in a state that does not allow it", ""),
    "IncorrectState": ("conflict", "it is in a state that does not allow it", ""),
    "InvalidSnapshot.InUse": ("conflict", "an AMI is made of it", "Deregister the AMI first, if nobody needs it."),
    "InvalidAMIName.Duplicate": ("conflict", "an AMI has that name already", ""),
    "InvalidConversionTaskId": ("not_found", "there is no such task", ""),
    "NotExportable": ("unsupported", "AWS does not export this one", "Set method: direct, which exports it."),
    "ResourceLimitExceeded": _QUOTA,
    "NoSuchBucket": ("not_found", "the bucket does not exist", "Check its name."),
    "NoSuchUpload": ("not_found", "the upload does not exist", ""),
    "NoSuchKey": ("not_found", "the object does not exist", ""),
    "PreconditionFailed": ("conflict", "the object is another one now", "Look who writes there."),
    "SlowDown": BUSY,
    "ResourceNotFoundException": ("not_found", "it does not exist", ""),
}
# Of EBS direct's ValidationException, which has one code for all that it refuses.
_BY_REASON: Dict[str, Meaning] = {
    "UNRELATED_SNAPSHOTS": ("conflict", "the snapshots are not of the same volume", ""),
    "INVALID_BLOCK_TOKEN": ("conflict", "the token of a block is over", "Run the task again."),
    "INVALID_PAGE_TOKEN": ("conflict", "the next page of a list is over", "Run the task again."),
    "INVALID_SNAPSHOT_ID": ("not_found", "there is no such snapshot", ""),
}
# With what AWS says of it, since they have many reasons.
_BY_PREFIX: Dict[str, Kind] = {
    "Unsupported": "unsupported",  # also `UnsupportedOperation`; by itself, of a type that a zone does not have
    "OperationNotPermitted": "conflict",
    "InvalidParameter": "invalid_config",
}
_DENIED = ("UnauthorizedOperation", "AccessDeniedException", "AccessDenied", "UnauthorizedAccess")


@contextmanager
def translated(doing: str, secrets: Sequence[str] = ()) -> Iterator[None]:
    """`doing` names the verb and the object. `secrets` are blotted out of what the server says."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        said = Said.of(error, secrets)
        reason = str(error.response.get("Reason")) if said.code == "ValidationException" else ""
        raise refusal(_BY_REASON.get(reason) or _meaning(said), doing, said.retry_after) from error
    except (BotoCoreError, ResponseParserError, HTTPError, OSError) as error:
        raise failure(error, doing, _explained) from error


def reason_of(error: Exception) -> str:
    """Of an error of ours, what EBS direct gave as the reason, such as `INVALID_BLOCK_TOKEN`; '' where it gave none."""
    said = getattr(error.__cause__, "response", None)
    return str(said.get("Reason") or "") if isinstance(said, dict) else ""


def was_sent_again(error: Exception) -> bool:
    """Of an error of ours, whether it answers a request that the SDK had sent before, to no use as far as it knows."""
    said = getattr(error.__cause__, "response", None)
    return isinstance(said, dict) and bool(said.get("ResponseMetadata", {}).get("RetryAttempts"))


def _explained(error: Exception) -> Meaning:
    return unanswered(error, "AWS", "the settings of aws")


def _meaning(said: Said) -> Meaning:
    if role := refused_role(said):
        return role
    if said.code in _BY_CODE:
        return _BY_CODE[said.code]
    if said.code in _DENIED:
        return "permission_denied", "access was denied", f"Let the credentials' policy allow {said.operation}."
    if said.code.endswith((".NotFound", "NotFoundException")):
        return "not_found", f"it does not exist ({said.message})", "Check its id, and region."
    for prefix, kind in _BY_PREFIX.items():
        if said.code.startswith(prefix):
            return kind, f"AWS refused it with {said.words}", ""
    if said.status >= 500:
        return BROKEN
    return "internal", f"AWS refused it with {said.words}", "Look the code up in the documentation of AWS."
