# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which temporary objects become one: a tree, since a request joins 32 at most.

Each name says what the object is to hold, so that one that another process left is known by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce
from typing import Dict, Iterator, List, Mapping, Sequence, Tuple

from .crc32c import combined

FAN_IN = 32  # sources of one request: https://cloud.google.com/storage/docs/composite-objects
_NAME = re.compile(r"([0-9a-f]{2})([0-9a-f]{6})([0-9a-f]{8})")


@dataclass(frozen=True)
class Node:
    """A part (`level` 0, `index` its number) or what was joined of 32 of the level below (`index` from 0)."""

    level: int
    index: int
    size: int
    crc: int
    sources: Tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.level:02x}{self.index:06x}{self.crc:08x}"

    @classmethod
    def named(cls, name: str, size: int) -> Node | None:
        found = _NAME.fullmatch(name)
        return cls(int(found[1], 16), int(found[2], 16), size, int(found[3], 16)) if found else None

    def holds(self, number: int) -> bool:
        """Whether the part of this number went into it."""
        if self.level == 0:
            return self.index == number
        return (number - 1) // FAN_IN**self.level == self.index


def whole_of(nodes: Sequence[Node]) -> Tuple[int, int]:
    """Checksum and size of all of them, one behind the other."""
    return reduce(lambda whole, node: (combined(whole[0], node.crc, node.size), whole[1] + node.size), nodes, (0, 0))


def roots_over(parts: Sequence[Node]) -> Sequence[Node]:
    """At most 32 that are the whole object, in order."""
    nodes, level = list(parts), 0
    while len(nodes) > FAN_IN:
        level += 1
        nodes = [_joined(level, at // FAN_IN, nodes[at : at + FAN_IN]) for at in range(0, len(nodes), FAN_IN)]
    return nodes


def _joined(level: int, index: int, sources: Sequence[Node]) -> Node:
    crc, size = whole_of(sources)
    return Node(level, index, size, crc, tuple(sources))


def still_to_join(roots: Sequence[Node], there: Mapping[str, int]) -> Iterator[List[Node]]:
    """Nodes that have to be made, level by level. `there`: the size of what lies in the store, by name."""
    levels: Dict[int, List[Node]] = {}
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node.sources and there.get(node.name) != node.size:
            levels.setdefault(node.level, []).append(node)
            waiting.extend(node.sources)
    for level in sorted(levels):
        yield levels[level]
