# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What VM Import/Export does not export, told before anything is made.

https://docs.aws.amazon.com/vm-import/latest/userguide/limits-image-export.html
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, List, Sequence

from ..._errors import VmferryError
from ..base import VendorTask
from ..finding import Finding
from ..spec import DiskSpec, VmSpec
from .session import Session
from .snapshot_checks import denied
from .staged_image import split_staging
from .vendor_task import IMAGE_FORMAT, under_way

TIB = 1 << 40
AT_ONCE = 5  # tasks of an account in a region, unless AWS raised that
DIRECT = "Set method: direct, which exports it."
_LICENSED = ("Windows", "SQL Server")  # as PlatformDetails tells it
_BOOT_DISK = "A task of AWS exports the boot disk of a VM, and that alone"
_KMS = ("aws:kms", "aws:kms:dsse")
_NOT_ENCRYPTED = "ServerSideEncryptionConfigurationNotFoundError"


def insist_on_one_disk(vm: VmSpec, disks: Sequence[DiskSpec]) -> DiskSpec:
    """Raises `unsupported`."""
    if len(disks) != 1 or not disks[0].boot:
        names = ", ".join(disk.name for disk in disks) or "no disk"
        boot = next((disk.id for disk in vm.disks if disk.boot), "")
        hint = f"Set disks: [{boot}], or method: direct." if boot else DIRECT
        raise VmferryError("unsupported", f"{_BOOT_DISK}, not {names} of {vm.name}.", hint)
    return disks[0]


def vendor_findings(session: Session, vm: VmSpec, disks: Sequence[DiskSpec], wish: VendorTask) -> List[Finding]:
    """Besides those of any export from AWS."""
    return [*_of_vm(vm, disks), *_of_bucket(session, wish), *_of_account(session, vm, wish)]


def _of_vm(vm: VmSpec, disks: Sequence[DiskSpec]) -> Iterator[Finding]:
    try:
        insist_on_one_disk(vm, disks)
    except VmferryError as error:
        yield Finding("error", error.message, error.hint, error.kind)
    if vm.details["platform"].lower() == "windows" or any(word in vm.guest_os for word in _LICENSED):
        yield _never(f"A task of AWS exports no Windows or SQL Server, and {vm.name} runs {vm.guest_os}.")
    if vm.details["product_codes"]:
        yield _never(f"AWS exports nothing that comes from its Marketplace, as {vm.name} does.")
    for disk in disks:
        if disk.details["encrypted"]:
            yield _never(f"AWS exports no encrypted volumes, as {disk.name} of {vm.name} is one.")
        if disk.size > TIB:
            yield _never(f"AWS exports volumes of up to 1 TiB, and {disk.name} of {vm.name} has {disk.size} bytes.")


def _of_bucket(session: Session, wish: VendorTask) -> Iterator[Finding]:
    """That it is there, this account's, in this region, and not encrypted in a way that the task cannot write."""
    bucket, _prefix = split_staging(wish.staging)
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
        text = f"The staging bucket {bucket} is in {region}, and AWS exports into buckets of {session.region} alone."
        yield Finding("error", text, hint, "invalid_config")
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


def _of_account(session: Session, vm: VmSpec, wish: VendorTask) -> Iterator[Finding]:
    bucket, prefix = split_staging(wish.staging)
    running = under_way(session, "Looking at the export tasks of the account")
    if len(running) >= AT_ONCE:
        text = f"{len(running)} export tasks of the account run in {session.region}, and AWS allows {AT_ONCE} at once"
        yield Finding("warning", f"{text} unless it was asked for more.", "Wait for one of them, or ask AWS for more.")
    asked = {
        "DiskImageFormat": IMAGE_FORMAT,
        "ImageId": vm.details["image_id"],  # in the place of the one that is to be made
        "RoleName": wish.role,
        "S3ExportLocation": {"S3Bucket": bucket, "S3Prefix": prefix},
    }
    try:
        found = denied(session, "export_image", f"Starting a task to export {vm.name}", **asked)
    except VmferryError as error:
        if error.kind not in ("not_found", "unsupported", "conflict"):  # of that image, which may be gone, or another's
            raise
        found = []
    yield from found


def _never(text: str) -> Finding:
    return Finding("error", text, DIRECT, "unsupported")
