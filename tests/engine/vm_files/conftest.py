# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One shelf for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from .shelf import Shelf
from .written import WritingShelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "images").mkdir()
    return Shelf(tmp_path)


@pytest.fixture
def writing(tmp_path: Path) -> WritingShelf:
    (tmp_path / "images").mkdir()
    (tmp_path / "written").mkdir()
    return WritingShelf(tmp_path)
