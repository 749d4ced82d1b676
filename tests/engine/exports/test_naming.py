# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VM is called never decides where its files go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.fields import PLAIN_NAME
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import (
    export_id,
    is_export_id,
    iso_time,
    new_attempt,
    parse_iso_time,
    vm_folder,
)

UUID = "1f0c9a2b-3c4d-4e5f-8a9b-0c1d2e3f4a5b"


@given(st.text(), st.text())
def test_a_folder_is_one_plain_segment_whatever_the_name(name: str, uuid: str) -> None:
    assert PLAIN_NAME.fullmatch(vm_folder(name, uuid))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("web01", "web01-1f0c9a2b"),
        ("../../etc/passwd", "etc-passwd-1f0c9a2b"),
        ("Büro Server; rm -rf /", "Buro-Server-rm--rf-1f0c9a2b"),
        ("...", "vm-1f0c9a2b"),
        ("", "vm-1f0c9a2b"),
    ],
)
def test_a_folder_stays_readable(name: str, folder: str) -> None:
    assert vm_folder(name, UUID) == folder


def test_two_vms_of_one_name_do_not_meet() -> None:
    assert vm_folder("web", UUID) != vm_folder("web", "2" + UUID[1:])


def test_export_ids_sort_by_time_and_differ_within_a_second() -> None:
    first, second, later = (export_id(at, new_attempt()) for at in (1_000_000.1, 1_000_000.9, 1_000_001.0))
    assert first != second
    assert max(first, second) < later
    assert is_export_id(first)


@pytest.mark.parametrize("text", ["", "20261121T063000Z", "20261121T063000Z-XYZ", "../20261121T063000Z-00000000"])
def test_what_is_no_export_id(text: str) -> None:
    assert not is_export_id(text)


def test_times_come_back_as_they_were_written() -> None:
    assert parse_iso_time(iso_time(1_763_700_000)) == 1_763_700_000
