# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every session of libvirt has in common: what was opened is undone in the opposite order, however far it came."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from types import TracebackType
from typing import Mapping, TypeVar

from ..base import ExportSession

Session = TypeVar("Session", bound="OpenedExport")


class OpenedExport(ExportSession):
    _cleanup: ExitStack
    _reference: Mapping[str, str] | None = None  # of the session of a dead run, whose point in time it is to be
    _stays = False  # everything that was made on this host, for another run to take over

    @abstractmethod
    def _open(self, stack: ExitStack) -> None:
        """Puts on the stack how each thing it makes is undone, before it makes the next."""

    def _may_stay(self) -> bool:
        return True

    def stay(self) -> bool:
        self._stays = self._may_stay()
        return self._stays

    def __enter__(self: Session) -> Session:
        self._stays = self._reference is not None  # as it was found, should it fail until it is open
        with ExitStack() as stack:
            self._open(stack)
            self._cleanup = stack.pop_all()
        self._stays = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, traceback)
