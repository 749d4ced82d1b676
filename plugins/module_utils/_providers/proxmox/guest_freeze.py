# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest's file systems, frozen by its agent for a moment, and thawed whatever happens."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import Iterator

from ..._errors import VmferryError
from ..spec import VmSpec
from .keeper import Keeper
from .session import Session, part

THAW_ATTEMPTS = 3
THAW_PAUSE = 1.0  # seconds
THAW_TIMEOUT = 60.0  # seconds, on the node
_UNANSWERED = ("network", "timeout", "cancelled")  # kinds of errors after which it may be freezing
_NOT_ASKED = ("unsupported", "permission_denied", "unauthenticated")  # and after which it is not


class FreezeFailed(VmferryError):
    """The guest was not frozen, and is not now."""


@contextmanager
def frozen(session: Session, keeper: Keeper, vm: VmSpec) -> Iterator[None]:
    """The keeper thaws it where this process dies. Raises `FreezeFailed`, and the reason where it cannot be thawed.

    A call that had no answer may freeze the guest later: unless it can be thawed, that is no `FreezeFailed`, so that
    nothing goes on with a guest that may be frozen for as long as an export takes.
    """
    entry = keeper.will(kind="frozen", vmid=int(vm.id))
    try:
        with session.doing(f"Freezing the file systems of {vm.name}"):
            session.post(f"nodes/{part(vm.host)}/qemu/{vm.id}/agent/fsfreeze-freeze")
    except VmferryError as error:
        if error.kind in _UNANSWERED:
            _thaw(session, keeper, vm)
            keeper.change(entry)
        elif error.kind in _NOT_ASKED:
            keeper.change(entry)
        else:
            with suppress(VmferryError):  # its agent undoes by itself what it froze where it fails
                _thaw_once(session, vm)
                keeper.change(entry)
        raise FreezeFailed(error.kind, error.message, error.hint) from error
    try:
        yield
    finally:
        _thaw(session, keeper, vm)
        keeper.change(entry)


def _thaw(session: Session, keeper: Keeper, vm: VmSpec) -> None:
    for _attempt in range(THAW_ATTEMPTS - 1):
        with suppress(VmferryError):
            _thaw_once(session, vm)
            return
        time.sleep(THAW_PAUSE)
    try:  # the API may be what fails
        keeper.node.run(["qm", "guest", "cmd", vm.id, "fsfreeze-thaw"], timeout=THAW_TIMEOUT)
    except VmferryError as error:
        error.hint = f"Thaw it by hand: qm guest cmd {vm.id} fsfreeze-thaw, or fsfreeze --unfreeze in the guest."
        raise


def _thaw_once(session: Session, vm: VmSpec) -> None:
    with session.doing(f"Thawing the file systems of {vm.name}"):
        session.post(f"nodes/{part(vm.host)}/qemu/{vm.id}/agent/fsfreeze-thaw")
