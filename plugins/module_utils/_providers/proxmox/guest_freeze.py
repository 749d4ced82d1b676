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


class FreezeFailed(VmferryError):
    """The guest was not frozen, and is not now."""


@contextmanager
def frozen(session: Session, keeper: Keeper, vm: VmSpec) -> Iterator[None]:
    """The keeper thaws it where this process dies. Raises `FreezeFailed`, and the reason where it cannot be thawed."""
    entry = keeper.will(kind="frozen", vmid=int(vm.id))
    try:
        with session.doing(f"Freezing the file systems of {vm.name}"):
            session.post(f"nodes/{part(vm.host)}/qemu/{vm.id}/agent/fsfreeze-freeze")
    except VmferryError as error:
        with suppress(VmferryError):  # one that was refused leaves nothing to thaw; what came too late does
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
