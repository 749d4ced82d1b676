# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""That an object is being replaced, told by an empty one beside it for as long as that takes.

Blocks beside an object that is there are in no listing. Without this, whoever looks for unfinished uploads would have
to ask for the blocks of every object that there is.
"""

from __future__ import annotations

from threading import Lock

from ..._errors import VmferryError
from ..keys import PARTIAL
from .container import Container


def replaced_key(name: str) -> str:
    """Which object this one tells of; '' where it is no such one."""
    return PARTIAL.sub("", name) if PARTIAL.search(name) else ""


class Replacing:
    """Of one upload. Thread-safe."""

    def __init__(self, container: Container, key: str, mark: str) -> None:
        """`mark`: the upload's, which ends in 16 hexadecimal digits that no other has."""
        self._container, self._name, self._key = container, f"{key}.{mark[-16:]}.part", key
        self._lock = Lock()
        self._looked = False
        self._told = True  # maybe: by an earlier process

    def tell(self) -> None:
        """Before the first block, where an object is there."""
        with self._lock:
            if self._looked:
                return
            self._told = self._container.properties(self._key) is not None
            if self._told:
                with self._container.doing("Writing", self._name):
                    self._container.blob(self._name).upload_blob(b"", length=0, overwrite=True)
            self._looked = True

    def forget(self) -> None:
        if self._told:
            remove(self._container, self._name)
            self._told = False


def remove(container: Container, name: str) -> None:
    try:
        with container.doing("Deleting", name):
            container.blob(name).delete_blob()
    except VmferryError as error:
        if error.kind != "not_found":
            raise
