# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that is read as an image, and by what it is seen that it was written to."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.disk_image import stored_image
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.image_file import ImageFile
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store


def test_a_write_is_seen_whatever_times_are_put_back(tmp_path: Path) -> None:
    path = tmp_path / "web.raw"
    path.write_bytes(bytes(4096))
    os.utime(path, (1, 1))
    with closing(open_store(tmp_path.as_uri(), {})) as store:
        file = ImageFile.at(store, "web.raw")
        file.insist_on_no_change()
        before = path.stat().st_ctime_ns
        while path.stat().st_ctime_ns == before:  # the clock of a file system has steps of some milliseconds
            path.write_bytes(b"other".ljust(4096, b"\0"))
            os.utime(path, (1, 1))
        with pytest.raises(VmferryError, match="changed while it was read") as raised:
            file.insist_on_no_change()
    assert raised.value.kind == "conflict"


def test_an_image_with_other_rights_is_the_same_image(tmp_path: Path) -> None:
    """Or a task that made a VM of it would not know its own."""
    path = tmp_path / "web.raw"
    path.write_bytes(bytes(4096))
    with closing(open_store(tmp_path.as_uri(), {})) as store:
        before = stored_image(store, "web.raw").identity
        path.chmod(0o640)
        assert stored_image(store, "web.raw").identity == before
