# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What retention asks about chains: who stands on whom, and who can take over what another holds."""

from __future__ import annotations

from typing import Iterable, Mapping, Sequence

from .retention_rules import Candidate


def children(staying: Iterable[str], parents: Mapping[str, str]) -> dict[str, str]:
    """Of everything that something staying stands on, however far below: what stands on it directly."""
    found: dict[str, str] = {}
    for key in staying:
        parent = parents.get(key, "")
        while parent and parent not in found:
            found[parent] = key
            key, parent = parent, parents.get(parent, "")
    return found


def below(key: str, parents: Mapping[str, str]) -> list[str]:
    """All that it stands on, however far below."""
    found: list[str] = []
    while (key := parents.get(key, "")) and key not in found:
        found.append(key)
    return found


def merged(
    candidates: Sequence[Candidate], staying: Iterable[str], parents: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """By key of what can be merged: the exports that take it over, which stay.

    Whoever makes an increment reads all that it stands on, so nothing is merged below it. And what nobody asked about
    takes nothing over: its parent stays, which can.
    """
    by_key = {one.key: one for one in candidates}
    stays = list(staying)
    held = set(stays)
    for key in list(stays):
        one = by_key[key]
        needs = below(key, parents) if one.in_use else [] if one.looked_at else [parents.get(key, "")]
        for needed in needs:
            if needed in by_key and needed not in held:
                held.add(needed)
                stays.append(needed)
    into: dict[str, list[str]] = {}
    for key in stays:
        parent = parents.get(key, "")
        while parent in by_key and parent not in held and key not in into.get(parent, ()):
            into.setdefault(parent, []).append(key)
            parent = parents.get(parent, "")
    return {key: tuple(sorted(targets)) for key, targets in into.items()}
