# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of `vm_info` as those of DescribeInstances, as far as it has them.

What comes back fits them at least, and is looked at again: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
"""

from __future__ import annotations

import re
from typing import Iterator, List, Mapping, Sequence

from .asking import Filter, literal, of
from .tags import NAME

THERE = ("pending", "running", "stopping", "stopped")  # and not gone, or going
_STATES: Mapping[str, Sequence[str]] = {
    "powered_on": ("pending", "running", "stopping"),
    "powered_off": ("stopped",),
    "suspended": ("stopped",),
}
_WILD = re.compile(r"\[!?\]?[^]]*\]|[*?]")  # of a glob, as `fnmatch` reads it
_LIKE_AN_ID = "i-"


def passed_on(filters: Mapping[str, str]) -> List[Filter]:
    """No filter of an instance that could be called by its id: that has no name to be found by."""
    states = _STATES.get(filters.get("power_state") or "", THERE)
    return [of("instance-state-name", states), *_of_name(filters.get("name") or ""), *_of_tag(filters.get("tag") or "")]


def _of_name(glob: str) -> Iterator[Filter]:
    begins = _WILD.split(glob, 1)[0]
    whole = begins == glob
    may_be_id = begins.startswith(_LIKE_AN_ID) or (not whole and _LIKE_AN_ID.startswith(begins))
    if glob and not may_be_id:
        yield of(f"tag:{NAME}", ["".join(_pattern(glob))])


def _pattern(glob: str) -> Iterator[str]:
    """EC2 has no sets of signs: one of them is any there."""
    at = 0
    for wild in _WILD.finditer(glob):
        yield literal(glob[at : wild.start()])
        yield "*" if wild[0] == "*" else "?"
        at = wild.end()
    yield literal(glob[at:])


def _of_tag(tag: str) -> Iterator[Filter]:
    """Where the key may have an equals sign itself, it is not known where the value begins."""
    key, equals, value = tag.partition("=")
    if tag and not equals:
        yield of("tag-key", [literal(key)])
    elif key and value and "=" not in value:
        yield of(f"tag:{key}", [literal(value)])
