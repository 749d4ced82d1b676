# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One exception tree. Raised where the knowledge is; caught only where something is done about it."""

from __future__ import annotations

from typing import Any, Literal, Mapping

Kind = Literal[
    "not_found",
    "permission_denied",
    "unauthenticated",
    "network",
    "timeout",
    "rate_limited",
    "checksum_mismatch",
    "invalid_config",
    "no_space",
    "conflict",
    "busy",
    "unsupported",
    "quota",
    "cancelled",
    "internal",
]
# The hint of `busy`, where it is a job of ours.
WAIT_OR_CANCEL = (
    "Wait until it is done. vmferry.migrate.job_info tells how far it is, and vmferry.migrate.job with "
    "state: cancelled ends it."
)
# And where it is an export.
WAIT_OR_FOLLOW = f"{WAIT_OR_CANCEL} With attach: true, vm_export follows it instead of failing."
RETRYABLE: frozenset[str] = frozenset({"network", "timeout", "rate_limited", "busy"})


class VmferryError(Exception):
    """One sentence that says what failed, on which VM, disk or URL; `hint` says what to do about it.

    `retryable` says whether the same call may go through later (by default, by kind); `retry_after` (seconds) is
    what the other side asked for. `phase` is filled in by the operation that was under way.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        hint: str = "",
        *,
        retryable: bool | None = None,
        phase: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.hint, self.phase = kind, message, hint, phase
        self.retryable = kind in RETRYABLE if retryable is None else retryable
        self.retry_after = retry_after
        self.job: Mapping[str, Any] | None = None  # as in a module's result, once a transfer was started
        self.done: Mapping[str, Any] = {}  # a module's result, as far as it came; it is returned with the failure

    def __str__(self) -> str:
        return self.message

    def as_result(self) -> dict[str, Any]:
        """The `error` of a module's result."""
        return {"kind": self.kind, "retryable": self.retryable, "phase": self.phase, "hint": self.hint}
