# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a template of a snapshot's name stands for."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.snapshot_choice import DEFAULT_NAME, filled

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (DEFAULT_NAME, "vmferry-20260102T030405Z"),
        ("{vm}-{job}", "web01-6f1d2c0e"),
        ("{vm}{vm}", "web01web01"),
        ("before upgrade", "before upgrade"),
    ],
)
def test_template_is_filled(template: str, name: str) -> None:
    assert filled(template, "web01", "6f1d2c0e", NOW) == name


def test_a_name_of_a_vm_is_not_a_template() -> None:
    assert filled("{vm}", "web{job}", "6f1d2c0e", NOW) == "web{job}"


@pytest.mark.parametrize("template", ["{host}", "{}", "a/b", ".hidden", "-rf", "two\nlines", "n" * 129])
def test_what_cannot_be_a_name_is_refused(template: str) -> None:
    with pytest.raises(VmferryError) as refused:
        filled(template, "web01", "6f1d2c0e", NOW)
    assert refused.value.kind == "invalid_config"
    assert refused.value.hint
