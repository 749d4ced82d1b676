# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets `ansible_collections.vmferry.migrate` be imported from a clone in any folder, with or without Ansible."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rigs.libvirt import LibvirtRig

ROOT = Path(__file__).resolve().parents[1]


def _link_collection() -> Path:
    build = ROOT / ".build"
    link = build / "ansible_collections" / "vmferry" / "migrate"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        with contextlib.suppress(FileExistsError):  # another worker of the same run was faster
            link.symlink_to(ROOT)
    return build


try:
    found = importlib.util.find_spec("ansible_collections.vmferry.migrate")
except ModuleNotFoundError:
    found = None
if found is None:
    sys.path.insert(0, str(_link_collection()))


@pytest.fixture(scope="session")
def libvirt_rig() -> Iterator[LibvirtRig]:
    """One for all folders of tests that run together."""
    from rigs.libvirt import LibvirtRig  # which hosts that run no libvirt do not need

    with LibvirtRig() as started:
        yield started
