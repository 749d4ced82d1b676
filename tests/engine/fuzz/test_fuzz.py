# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A short look with random damage at every reader of what others write; `./dev fuzz` is the long one."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from hypothesis import settings

from ..images.disks import FEW
from . import targets
from .targets import TARGETS, Hang, demand, fuzz

MANY = {"inspect": 150, "manifest": 120, "qcow2_encrypted": 20}
USUAL = 80


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_whatever_the_bytes_are_a_reader_ends_or_raises_our_own_error(name: str) -> None:
    fuzz(name, settings(FEW, max_examples=MANY.get(name, USUAL), derandomize=False))


def test_a_reader_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(_drawn: object) -> None:
        while True:
            pass

    monkeypatch.setattr(targets, "CPU_SECONDS", 0.05)
    with pytest.raises(Hang):
        demand(hang, None)


# What earlier tests left in this process may go meanwhile, and make room.
TAKES_MEMORY = """
from engine.fuzz import targets
targets.MEMORY = 32 << 20
targets.demand(lambda length: len(b"x" * length), 300 << 20)
"""


def test_a_reader_that_takes_memory_is_noticed() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", TAKES_MEMORY], env=environment, capture_output=True, text=True)
    assert re.search(r"AssertionError: \d{9} bytes of memory", ended.stderr), ended.stderr


def test_a_reader_that_breaks_is_noticed() -> None:
    with pytest.raises(ZeroDivisionError):
        demand(lambda number: 1 // number, 0)
