# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that move objects have in common: slots, free space, and how a result tells of what was moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence
from urllib.parse import urlsplit

from ..._errors import VmferryError
from ..._providers.finding import Finding
from ..._stores.base import Store
from ..jobs.requests import StoreSpec
from ..jobs.running_job import RunningJob
from .move_object import Sent

UNCHANGED = "unchanged"
PHASES = {"transferring": 1.0}


@dataclass(frozen=True)
class StoreAccount:
    """Of which bucket, or of which host's folders, transfers are counted."""

    account: str
    max_jobs: int = 8

    @classmethod
    def of(cls, spec: StoreSpec) -> StoreAccount:
        parts = urlsplit(spec.url)
        return cls(f"{parts.scheme or 'file'}://{parts.netloc}")


def rate(count: int, seconds: float) -> int:
    return round(count / max(seconds, 0.001))


def told(sent: Sent, verified: bool) -> dict[str, Any]:
    """`verified`: whether there was a checksum to compare with."""
    return {
        "size": sent.info.size,
        "checksum": sent.sha256,
        "etag": sent.info.etag,
        "bytes_sent": sent.bytes_sent,
        "bytes_kept": sent.bytes_kept,
        "sent_as": sent.sent_as,
        "verified": verified,
        "duration": round(sent.duration, 3),
        "rate": rate(sent.bytes_sent, sent.duration),
    }


def not_told(size: int, checksum: str, etag: str) -> dict[str, Any]:
    """Of what stayed as it is, of the same shape."""
    nothing = {"bytes_sent": 0, "bytes_kept": 0, "sent_as": "", "verified": bool(checksum), "duration": 0.0, "rate": 0}
    return {"size": size, "checksum": checksum, "etag": etag, **nothing}


def tell_outcome(job: RunningJob, changed: bool) -> None:
    """In the job's record: bytes may have moved all the same, to be compared with what is there."""
    if not changed:
        job.tell(outcome=UNCHANGED)


def space_findings(store: Store, size: int) -> list[Finding]:
    free = store.free_space()
    if free is None or free >= size:
        return []
    message = f"{store.url} has {free} bytes free, and up to {size} are needed."
    return [Finding("warning", message, "Free some space, or choose another place.", "no_space")]


def insist_on_checksum(url: str, noted: str, wanted: str) -> None:
    """Before the first byte, where the store can tell."""
    if noted and wanted and noted != wanted:
        raise VmferryError(
            "checksum_mismatch",
            f"{url} has the SHA-256 {noted}; the task wants {wanted}.",
            "Correct the checksum, or the URL.",
        )


def warnings_of(findings: Sequence[Finding]) -> list[str]:
    return [f"{finding.message} {finding.hint}".rstrip() for finding in findings if finding.severity == "warning"]
