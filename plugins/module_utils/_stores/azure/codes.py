# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Azure's codes mean, in the words of a store.

https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes and blob-service-error-codes
"""

from __future__ import annotations

from typing import Dict

from ..._http import answers
from ..._http.answers import BROKEN, BUSY, CANNOT, CONDITION, GARBLED, SHORT, Meaning

CREDENTIALS = "Check account_name and account_key, sas_token, connection_string, or client_id, secret and tenant."
DENIED: Meaning = (
    "permission_denied",
    "access was denied",
    "Grant the role Storage Blob Data Contributor on the container, or a SAS with the permissions rcwdl, and let "
    "this machine through the account's firewall. Otherwise check the credentials.",
)
LATE: Meaning = ("timeout", "the server took too long", "Try again later.")
GONE: Meaning = ("not_found", "the object does not exist", "")
NO_CONTAINER: Meaning = (
    "not_found",
    "the account or the container does not exist",
    "Create the container, or correct the storage URL and account_name.",
)
NO_BLOCKS: Meaning = (
    "conflict",
    "blocks of this upload are not there any more",
    "Another upload of the same object was completed or removed meanwhile.",
)
OTHER_BLOCKS: Meaning = (
    "conflict",
    "another program's unfinished upload of the same object is in the way",
    "Delete the object, finish that upload, or wait a week, after which Azure removes it.",
)
LOCKED: Meaning = (
    "permission_denied",
    "the object is protected by an immutability policy, a legal hold or a lease",
    "Wait until its retention is over, or write elsewhere.",
)
TOO_LARGE: Meaning = ("quota", "the object or block is larger than the server takes", "")
ARCHIVED: Meaning = (
    "unsupported",
    "the object is in the archive tier and cannot be read",
    "Move it to the hot, cool or cold tier, which takes hours, and try again.",
)
NO_KEYS: Meaning = (
    "unauthenticated",
    "the account accepts no account key",
    "Give client_id, secret and tenant, or let the task run with a managed identity.",
)
DISABLED: Meaning = ("permission_denied", "the account is disabled", "Ask whoever owns the subscription.")


def signature(reason: str, hint: str = CREDENTIALS) -> Meaning:
    return "unauthenticated", reason, hint


BY_CODE: Dict[str, Meaning] = {
    "AccountIsDisabled": DISABLED,
    "AuthenticationFailed": signature("the key, SAS or token was refused, or this machine's clock is wrong"),
    "InvalidAuthenticationInfo": signature("the credentials are not valid"),
    "NoAuthenticationInformation": signature("the server wants credentials"),
    "KeyBasedAuthenticationNotPermitted": NO_KEYS,
    "AuthorizationFailure": DENIED,  # a firewall's; of Azurite, a wrong key as well
    "AuthorizationPermissionMismatch": DENIED,
    "AuthorizationProtocolMismatch": DENIED,
    "AuthorizationResourceTypeMismatch": DENIED,
    "AuthorizationServiceMismatch": DENIED,
    "AuthorizationSourceIPMismatch": DENIED,
    "InsufficientAccountPermissions": DENIED,
    "PublicAccessNotPermitted": DENIED,
    "UnauthorizedBlobOverwrite": DENIED,
    "BlobAlreadyExists": CONDITION,
    "ConditionNotMet": CONDITION,
    "TargetConditionNotMet": CONDITION,
    "BlobArchived": ARCHIVED,
    "BlobBeingRehydrated": ARCHIVED,
    "BlobImmutableDueToPolicy": LOCKED,
    "BlobImmutableDueToLegalHold": LOCKED,
    "LeaseIdMissing": LOCKED,
    "BlobNotFound": GONE,
    "ResourceNotFound": NO_CONTAINER,
    "ContainerNotFound": NO_CONTAINER,
    "ContainerBeingDeleted": NO_CONTAINER,
    "ContainerDisabled": NO_CONTAINER,
    "InvalidResourceName": ("invalid_config", "the container's or object's name is not valid", "Correct the URL."),
    "InvalidUri": ("invalid_config", "the container's or object's name is not valid", "Correct the URL."),
    "InvalidBlobOrBlock": OTHER_BLOCKS,
    "InvalidBlobType": (
        "conflict",
        "an object of another type has this name",
        "Delete it, or choose another storage URL.",
    ),
    "InvalidBlockList": NO_BLOCKS,
    "SourceConditionNotMet": CONDITION,
    "CannotVerifyCopySource": ("unsupported", "the server cannot read the object that it was to copy", ""),
    "PendingCopyOperation": ("conflict", "something is being copied to this object", "Wait until that is done."),
    "InvalidRange": SHORT,
    "Md5Mismatch": GARBLED,
    "Crc64Mismatch": GARBLED,
    "OperationTimedOut": LATE,
    "ServerBusy": BUSY,
    "InternalError": BROKEN,
    "RequestBodyTooLarge": TOO_LARGE,
    "BlockCountExceedsLimit": TOO_LARGE,
    "BlockListTooLong": TOO_LARGE,
    "FeatureNotSupported": CANNOT,  # Azurite's
    "FeatureVersionMismatch": CANNOT,
    "UnsupportedHeader": CANNOT,
    "SnapshotsPresent": (
        "conflict",
        "the object has snapshots",
        "Delete its snapshots first, if nobody needs them.",
    ),
}
BY_STATUS: Dict[int, Meaning] = {
    **answers.BY_STATUS,
    401: signature("the credentials were refused"),
    403: DENIED,
    404: GONE,
    408: LATE,
    413: TOO_LARGE,
}
