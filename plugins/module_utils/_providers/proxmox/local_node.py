# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node that this process runs on."""

from __future__ import annotations

import platform
from contextlib import contextmanager
from typing import Iterator, List, Sequence

from .node import Node


class LocalNode(Node):
    def __init__(self) -> None:
        self.name = platform.node()

    def command(self, argv: Sequence[str]) -> List[str]:
        return list(argv)

    @contextmanager
    def forward(self, socket: str) -> Iterator[str]:
        yield socket
