# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found before the first byte: told by check mode, and the reason why a run begins nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Mapping, Sequence

from ..._errors import VmferryError
from ..._providers.base import Placement, Provider
from ..._providers.finding import Finding
from ..._providers.spec import VmSpec


def raise_first_error(findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.severity == "error":
            raise VmferryError(finding.kind or "invalid_config", finding.message, finding.hint)  # type: ignore[arg-type]


def insist_on_same(provider: Provider, vm: VmSpec, placement: Placement) -> None:
    """Of a VM that was made of the same. Raises `conflict` where it was made in another way than is asked for."""
    otherwise = provider.made_otherwise(vm, placement)
    if otherwise:
        raise VmferryError("conflict", otherwise, "Import under another name, or remove what is there first.")


def checked(
    findings: Sequence[Finding], planned: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    """Check mode's result. A run that would fail changes nothing, and a play shows warnings, but no findings."""
    errors = [finding for finding in findings if finding.severity == "error"]
    return {
        "changed": not errors,
        "findings": [vars(finding) for finding in findings],
        "plan": planned,
        "diff": {"before": before, "after": before if errors else after},
        "warnings": [f"{finding.message} {finding.hint}".rstrip() for finding in errors],
    }


@contextmanager
def told_in(findings: list[Finding]) -> Iterator[None]:
    """What the body fails with is one more finding, so that a check tells the next ones as well."""
    try:
        yield
    except VmferryError as error:
        findings.append(finding_of(error))


def finding_of(error: VmferryError) -> Finding:
    return Finding("error", error.message, error.hint, error.kind)
