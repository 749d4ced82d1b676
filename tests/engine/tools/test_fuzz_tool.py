# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./dev fuzz`: it runs what it is told to, can be repeated, and fails where something was found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "tools" / "fuzz.py"


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FUZZ), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_target_is_fuzzed_from_the_given_seed() -> None:
    done = fuzz("extent_map", "--seconds", "0", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["--seed 7", "extent_map: about 300 examples, none broke it"]


@pytest.mark.slow
def test_an_unknown_target_is_refused() -> None:
    done = fuzz("everything")
    assert done.returncode == 2
    assert "no such target: everything" in done.stderr
