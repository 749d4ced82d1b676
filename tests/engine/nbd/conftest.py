# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports that several tests read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs import nbd
from rigs.nbd_images import MIB, Image, made


@pytest.fixture(scope="session")
def islands(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Data, explicit zeros, holes and discarded clusters; a size that no cluster divides."""
    return made(
        tmp_path_factory.mktemp("islands") / "disk.qcow2",
        "qcow2",
        16 * MIB + 1536,
        "write -P 0x11 0 64k",
        "write -P 0x22 1M 3M",
        "write -z 2M 128k",
        "write -P 0x33 8M 1M",
        "discard 8448k 64k",
        "write -P 0x44 16M 1536",
    )


@pytest.fixture
def served(islands: Image) -> Iterator[Path]:
    with nbd.qemu_nbd(islands.path, "qcow2", "--read-only") as path:
        yield path


@pytest.fixture(scope="session")
def pattern() -> bytes:
    """What nbdkit's `pattern` plugin serves: every eight bytes are their own offset."""
    return b"".join(at.to_bytes(8, "big") for at in range(0, 4 * MIB, 8))
