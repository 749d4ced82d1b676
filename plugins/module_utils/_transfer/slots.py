# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many transfers of one hypervisor or account run at once, over all processes that share a state directory.

A slot is a locked file: the kernel gives it back however its process ends, also to those in other containers.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Callable, Iterator, Optional

from .record import make_private, unwritable

POLL = 0.5  # seconds between two tries


class Slots:
    """`account` is what must not be overrun, such as `libvirt qemu:///system`."""

    def __init__(self, state_dir: Path, account: str, count: int) -> None:
        self.account, self.count = account, count
        readable = re.sub(r"[^0-9A-Za-z]+", "-", account).strip("-")[:40]
        self._folder = state_dir / "slots" / f"{readable}-{sha256(account.encode()).hexdigest()[:8]}"
        self._state_dir = state_dir

    @contextmanager
    def taken(self, sleep: Callable[[float], None], waiting: Callable[[], None]) -> Iterator[None]:
        """Waits for one, calling `waiting` once if it has to; `sleep` may raise to end the wait."""
        held = self._try()
        if held is None:
            waiting()
        while held is None:
            sleep(POLL)
            held = self._try()
        try:
            yield
        finally:
            os.close(held)

    def _try(self) -> Optional[int]:
        try:
            for folder in (self._state_dir, self._folder.parent, self._folder):
                make_private(folder)
            for number in range(self.count):
                descriptor = os.open(self._folder / str(number), os.O_WRONLY | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                except OSError:
                    os.close(descriptor)
                    raise
                else:
                    return descriptor
        except OSError as error:
            raise unwritable(self._state_dir, error) from error
        return None
