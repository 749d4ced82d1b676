# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A volume of the node's storages as an NBD server of this machine, by the node's own `qemu-nbd`."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import count
from typing import Iterator

from ..._errors import VmferryError
from ..._nbd.qemu_nbd import SHARED, STOP_TIMEOUT, WRITE_BACK_TIMEOUT, complaint
from ..._nbd.transport import Address
from .keeper import Keeper, ServerFailed
from .node import RUN_FOLDER

_numbers = count()


@contextmanager
def served(
    keeper: Keeper,
    folder: str,
    image: str,
    format: str,
    *,
    read_only: bool,
    cache: str = "",
    discard: str = "unmap",
    detect_zeroes: str = "off",
) -> Iterator[Address]:
    """`image`: as `pvesm path` says it, a path or what QEMU opens by its own drivers (`rbd:…`). Its format is never
    guessed. `folder`: the job's, which the keeper has opened.

    It is locked as QEMU locks it, as far as its storage has locks: a VM cannot start on it meanwhile, and one that runs
    on it makes this `busy`. Once the context is left without a failure, everything that was
    written is on the storage, or this raises. The server ends with the keeper, however that ends.
    """
    name = f"n{next(_numbers)}"
    socket = f"{RUN_FOLDER}/{folder}/{name}"
    kept = cache or ("writeback" if read_only else "none")
    options = [f"--shared={SHARED}", f"--cache={kept}", f"--discard={discard}", f"--detect-zeroes={detect_zeroes}"]
    argv = ["qemu-nbd", "--persistent", "--socket=SOCKET", *options, *(["--read-only"] if read_only else [])]
    try:
        number = keeper.serve([*argv, f"--format={format}", "--", image], name)
    except ServerFailed as error:
        raise complaint(image, error.said) from error
    try:
        with keeper.node.forward(socket) as local:
            yield Address.unix(local)
    except BaseException:
        with suppress(VmferryError):  # the keeper undoes what is left
            keeper.stop(number, STOP_TIMEOUT)
        raise
    try:
        keeper.stop(number, STOP_TIMEOUT if read_only else WRITE_BACK_TIMEOUT)
    except ServerFailed as error:
        if not read_only:
            raise complaint(image, error.said) from error
    except VmferryError:
        if not read_only:  # what was read is right, however its server ended
            raise
