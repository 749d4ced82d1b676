# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the block status of several contexts means for an export: pure functions of each context's flags."""

from __future__ import annotations

from typing import Callable, Mapping

from .._blocks import Kind
from .protocol import BASE_ALLOCATION, STATE_ZERO

Classify = Callable[[Mapping[str, int]], Kind]  # flags by context; a context the server does not have is missing

ALLOCATION_DEPTH = "qemu:allocation-depth"
DIRTY = 1  # qemu:dirty-bitmap


def dirty_bitmap(name: str) -> str:
    """The context of a bitmap that a qemu server exports."""
    return f"qemu:dirty-bitmap:{name}"


def allocated(flags: Mapping[str, int]) -> Kind:
    """For a full export. A hole that is not said to read as zeros is data: its content is whatever a read gives."""
    return "zero" if flags.get(BASE_ALLOCATION, 0) & STATE_ZERO else "data"


def changed_since(bitmap: str) -> Classify:
    """For an increment. Dirty and zero is `zero`: the guest discarded it, and the parent must not show through."""
    context = dirty_bitmap(bitmap)

    def classify(flags: Mapping[str, int]) -> Kind:
        return allocated(flags) if flags[context] & DIRTY else "unchanged"

    return classify


def own_layer(flags: Mapping[str, int]) -> Kind:
    """For what one image of a chain holds itself: depth 1 of `qemu:allocation-depth`."""
    return allocated(flags) if flags[ALLOCATION_DEPTH] == 1 else "unchanged"
