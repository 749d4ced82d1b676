# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import (
    duration,
    file_mode,
    name_map,
    optional_duration,
    size,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("12h", 43200), ("720h", 2592000), ("30d", 2592000)]
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert duration("max_age", text) == optional_duration("max_age", text) == seconds


def test_duration_left_out_stays_left_out() -> None:
    assert optional_duration("max_age", None) is None


@pytest.mark.parametrize(("text", "count"), [("512", 512), ("10MiB", 10485760), ("100GB", 100 * 10**9)])
def test_sizes_are_bytes(text: str, count: int) -> None:
    assert size("bandwidth_burst", text) == count


@pytest.mark.parametrize("value", ["0640", "640", 0o640])
def test_mode_is_octal_in_text_and_a_number_as_yaml_read_it(value: Any) -> None:
    assert file_mode("storage.file_mode", value) == 0o640


@pytest.mark.parametrize("value", ["u=rw", "", "0888", "01777", -1, True, None])
def test_what_is_no_mode_is_refused(value: Any) -> None:
    with pytest.raises(VmferryError, match=r"storage\.file_mode") as caught:
        file_mode("storage.file_mode", value)
    assert caught.value.kind == "invalid_config"


def test_map_left_out_is_empty() -> None:
    assert name_map("network_map", None) == {}
