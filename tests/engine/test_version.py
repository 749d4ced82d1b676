# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The version that manifests carry is the collection's."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.write_export import VERSION

GALAXY = Path(__file__).resolve().parents[2] / "galaxy.yml"


def test_manifests_carry_the_version_of_the_collection() -> None:
    found = re.search(r"^version: (\S+)$", GALAXY.read_text(), re.MULTILINE)
    assert found is not None
    assert found.group(1) == VERSION
