# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Block status as extents: contexts overlaid, neighbours of one kind joined. Linear, however fragmented a disk is."""

from __future__ import annotations

from functools import lru_cache
from typing import Callable, Iterator, Mapping

from .._blocks import Extent, Kind
from .._errors import VmferryError
from .classification import Classify

Runs = Iterator["tuple[int, ...]"]  # (length, flags)
AskStatus = Callable[[int, int], Mapping[str, Runs]]  # (offset, length) → runs from offset on, by context


def classified(size: int, ask: AskStatus, classify: Classify) -> Iterator[tuple[int, Kind]]:
    """(length, kind) of runs covering `[0, size)`."""
    at = 0
    while at < size:
        status = ask(at, size - at)
        kind_of = _remembered(tuple(status), classify)
        start = at
        for length, flags in overlaid(tuple(status.values())):
            length = min(length, size - at)
            if length:
                yield length, kind_of(flags)
                at += length
        if at == start:
            raise VmferryError("internal", "The NBD server reported a block status of no length.")


def overlaid(contexts: tuple[Runs, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Cut the contexts' runs at each other's edges, as far as the shortest goes: (length, flags per context)."""
    if len(contexts) == 1:
        for length, flags in contexts[0]:
            yield length, (flags,)
        return
    left = [0] * len(contexts)
    flags_now = [0] * len(contexts)
    while True:
        for number, runs in enumerate(contexts):
            while not left[number]:
                run = next(runs, None)
                if run is None:
                    return
                left[number], flags_now[number] = run
        step = min(left)
        yield step, tuple(flags_now)
        left = [length - step for length in left]


def joined(runs: Iterator[tuple[int, Kind]]) -> Iterator[Extent]:
    at = length = 0
    kind: Kind = "data"
    for more, its_kind in runs:
        if length and its_kind != kind:
            yield Extent(at, length, kind)
            at, length = at + length, 0
        kind = its_kind
        length += more
    if length:
        yield Extent(at, length, kind)


def _remembered(names: tuple[str, ...], classify: Classify) -> Callable[[tuple[int, ...]], Kind]:
    return lru_cache(maxsize=1024)(lambda flags: classify(dict(zip(names, flags))))
