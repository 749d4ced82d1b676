# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a store finds out what its server really does: servers differ, and none says what it ignores."""

from __future__ import annotations

from typing import AbstractSet, Callable

from .._errors import VmferryError

SENT, OTHER = b"vmferry", b"another"
# What a server says of a request that it does not understand; all else says that the store cannot be used.
UNUSABLE: AbstractSet[str] = frozenset({"internal", "unsupported", "invalid_config", "checksum_mismatch"})


def accepts(request: Callable[[], object], unusable: AbstractSet[str] = UNUSABLE) -> bool:
    """Whether it goes through. Raises what is not `unusable`."""
    try:
        request()
    except VmferryError as error:
        if error.kind not in unusable:
            raise
        return False
    return True


def refuses(request: Callable[[], object], unusable: AbstractSet[str] = UNUSABLE) -> bool:
    """Whether its condition, which does not hold, is looked at. One that is not understood is not."""
    try:
        accepts(request, unusable)
    except VmferryError as error:
        if error.kind != "conflict":
            raise
        return True
    return False


def require_gone(gone: bool, url: str, place: str) -> None:
    """`url`: of the probe; `place`: what the user chose."""
    if not gone:
        raise VmferryError(
            "unsupported",
            f"The probe {url} is still there after its deletion.",
            f"Use a {place} in which objects can be deleted.",
        )
