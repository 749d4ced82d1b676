# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to nodes that are used for several things, each made when it is first needed."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import Dict, Iterator

from .choose_node import open_node
from .keeper import Keeper
from .node import Node
from .session import Session


class OpenNodes:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = Lock()
        self._nodes: Dict[str, Node] = {}

    @contextmanager
    def keeper(self, name: str) -> Iterator[Keeper]:
        """Of no job, to ask and to clean up with. Raises what `open_node` does."""
        with self._lock:
            if name not in self._nodes:
                self._nodes[name] = open_node(self._session, self._session.settings, name)
        with Keeper(self._nodes[name]) as keeper:
            yield keeper

    def close(self) -> None:
        with self._lock:
            nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            node.close()
