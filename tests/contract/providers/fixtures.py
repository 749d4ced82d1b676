# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bench for each driver; `EACH` parametrises a test over all of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .aws import AwsDriver
from .base import Driver
from .image import ImageDriver
from .libvirt import LibvirtDriver
from .proxmox import ProxmoxDriver
from .vsphere import VsphereDriver

if TYPE_CHECKING:
    from .bench import ProviderBench

DRIVERS: tuple[type[Driver], ...] = (LibvirtDriver, ImageDriver, VsphereDriver, AwsDriver, ProxmoxDriver)


@pytest.fixture(scope="session")
def forked_runs() -> None:
    from .dying import start_server

    start_server()


@pytest.fixture
def make_bench(
    request: pytest.FixtureRequest, forked_runs: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[type[Driver]], ProviderBench]]:
    from system.leftovers import MARK

    from .bench import ProviderBench

    with ExitStack() as stack:

        def make(driver: type[Driver]) -> ProviderBench:
            # Not pytest's own: the path of a unix socket has at most 107 bytes.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmferry-", dir="/tmp")))
            monkeypatch.delenv(MARK, raising=False)  # no server that the session shares is anybody's leftover
            made = driver.started(request.getfixturevalue, folder)
            monkeypatch.setenv(MARK, str(os.getpid()))
            stack.callback(made.close)
            return ProviderBench(made, folder)

        yield make


@pytest.fixture
def bench(request: pytest.FixtureRequest, make_bench: Callable[[type[Driver]], ProviderBench]) -> ProviderBench:
    return make_bench(request.param)
