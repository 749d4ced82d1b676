# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a bucket can be one that VM Import/Export writes images to, or reads them from."""

from __future__ import annotations

from typing import Any, Callable, Iterator

from ..._errors import VmferryError
from ..finding import Finding
from .session import Session
from .staged_image import split_staging

_KMS = ("aws:kms", "aws:kms:dsse")
_NOT_ENCRYPTED = "ServerSideEncryptionConfigurationNotFoundError"


def bucket_findings(session: Session, staging: str, *, is_written: bool) -> Iterator[Finding]:
    """That it is there, this account's, in this region, and, where AWS writes to it (`is_written`), not encrypted in a
    way that the task cannot write."""
    bucket, _prefix = split_staging(staging)
    own = {"Bucket": bucket, "ExpectedBucketOwner": session.account}
    s3, hint = session.client("s3"), "Name a bucket of this account in staging, in the region of the VM."
    try:
        with session.doing(f"Looking at the staging bucket {bucket}"):
            region = s3.get_bucket_location(**own).get("LocationConstraint") or "us-east-1"
    except VmferryError as error:
        yield Finding("error", error.message, hint if error.kind == "not_found" else error.hint, error.kind)
        return
    region = "eu-west-1" if region == "EU" else region  # as old buckets there tell it
    if region != session.region:
        does = "exports into" if is_written else "imports from"
        text = f"The staging bucket {bucket} is in {region}, and AWS {does} buckets of {session.region} alone."
        yield Finding("error", text, hint, "invalid_config")
    if is_written:
        yield from _of_encryption(session, bucket, lambda: s3.get_bucket_encryption(**own))
    yield from _of_versions(session, bucket, lambda: s3.get_bucket_versioning(**own))


def _of_encryption(session: Session, bucket: str, ask: Callable[[], Any]) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    try:
        with session.doing(f"Asking how the staging bucket {bucket} is encrypted"):
            try:
                rules = ask()["ServerSideEncryptionConfiguration"]["Rules"]
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != _NOT_ENCRYPTED:
                    raise
                rules = []
    except VmferryError as error:
        if error.kind != "permission_denied":
            raise
        yield Finding("warning", error.message, "AWS cannot export into a bucket that is encrypted by KMS.")
        return
    if any((rule.get("ApplyServerSideEncryptionByDefault") or {}).get("SSEAlgorithm") in _KMS for rule in rules):
        text = f"The staging bucket {bucket} is encrypted by KMS, and AWS exports into no such bucket."
        yield Finding("error", text, "Name one that is encrypted by SSE-S3 in staging.", "unsupported")


def _of_versions(session: Session, bucket: str, ask: Callable[[], Any]) -> Iterator[Finding]:
    try:
        with session.doing(f"Asking whether the staging bucket {bucket} keeps versions"):
            kept = ask().get("Status") == "Enabled"
    except VmferryError as error:
        if error.kind != "permission_denied":
            raise
        return
    if kept:
        text = f"The staging bucket {bucket} keeps what is removed from it as an older version, which costs money."
        yield Finding("warning", text, "Name another bucket in staging, or have its lifecycle end old versions.")
