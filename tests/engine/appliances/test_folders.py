# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A descriptor with its files beside it: what else lies in the folder is no business of the appliance."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.appliance import Appliance, open_appliance
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.packages import folder_package
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

from .archives import descriptor, sums

FILES = {"app.ovf": descriptor([("disk-0.vmdk", "d", "1")], units="byte * 2^30"), "disk-0.vmdk": bytes(4096)}
LISTED = {**FILES, "app.mf": sums(FILES)}


def beside(files: Mapping[str, bytes]) -> Appliance:
    def read(name: str, offset: int, buffer: memoryview) -> None:
        buffer[:] = files[name][offset : offset + len(buffer)]

    return open_appliance(folder_package("here", [(name, len(data)) for name, data in files.items()], read))


def test_what_lies_beside_an_appliance_is_left_alone_and_does_not_make_it_another() -> None:
    made = beside({**LISTED, "manifest.json": b"{}", "notes.txt": b"x"})
    assert set(made.package.members) == set(LISTED)
    assert made.identity == beside(LISTED).identity
    assert made.proves


@pytest.mark.parametrize(("left_out", "said"), [("disk-0.vmdk", "'disk-0.vmdk'"), ("app.ovf", "'app.ovf'")])
def test_a_file_that_is_used_needs_its_checksum(left_out: str, said: str) -> None:
    lines = sums({name: data for name, data in FILES.items() if name != left_out})
    with pytest.raises(VmferryError, match=f"no checksum of its file {said}"):
        beside({**FILES, "app.mf": lines})
