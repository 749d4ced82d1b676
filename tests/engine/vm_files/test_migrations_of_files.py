# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that are files become others, with no store between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    MigrateRequest,
    ProviderSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.migrate_vm import migrate_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement

from ..images.disks import run
from .shelf import GUEST, Shelf


def migrate(shelf: Shelf, vm: str, format: str, *, check_mode: bool = False, **asked: Any) -> dict[str, Any]:
    landing = shelf.folder / "landing"
    landing.mkdir(exist_ok=True)
    target = ProviderSpec("image", {"url": landing.as_uri(), "storage": {}})
    transfer = TransferOptions(state_dir=str(shelf.folder / "state"), parallel=2)
    placement = Placement("new", disk_format=format)
    return migrate_vm(MigrateRequest(shelf.provider, target, vm, placement, transfer=transfer, **asked), check_mode)


def holds_the_guest(shelf: Shelf, image: Path, format: str) -> None:
    raw = shelf.folder / "expected.raw"
    raw.write_bytes(GUEST)
    run("qemu-img", "compare", "-f", format, "-F", "raw", image, raw)


def test_an_ova_becomes_a_folder_of_images(shelf: Shelf) -> None:
    shelf.ova()
    result = migrate(shelf, "app.ova", "qcow2")
    first, second = result["migration"]["disks"]
    assert (result["migration"]["verified"], bool(first["digest_root"])) == ("none", True)
    (image,) = (shelf.folder / "landing").rglob("*disk1.qcow2")
    holds_the_guest(shelf, image, "qcow2")
    assert second["bytes_read"] == 0
    assert not migrate(shelf, "app.ova", "qcow2")["changed"]


def test_an_image_becomes_an_ova_in_which_it_is_the_same(shelf: Shelf) -> None:
    shelf.image("web.qcow2", "qcow2")
    there = migrate(shelf, "web", "ova")
    again = migrate_vm(
        MigrateRequest(
            ProviderSpec("image", {"url": (shelf.folder / "landing").as_uri(), "storage": {}}),
            ProviderSpec("image", {"url": shelf.images.as_uri(), "storage": {}}),
            "new.ova",
            Placement("back", disk_format="raw"),
            transfer=TransferOptions(state_dir=str(shelf.folder / "state")),
        ),
        check_mode=False,
    )
    (image,) = shelf.images.rglob("*disk1.raw")
    assert image.read_bytes() == GUEST
    roots = [told["migration"]["disks"][0]["digest_root"] for told in (there, again)]
    assert roots[:1] * 2 == roots


def test_files_are_not_read_back_before_they_are_a_vm(shelf: Shelf) -> None:
    shelf.image("web.qcow2", "qcow2")
    found = migrate(shelf, "web", "ova", check_mode=True, verify="content")
    assert [one["kind"] for one in found["findings"] if one["severity"] == "error"] == ["unsupported"]
    with pytest.raises(VmferryError, match="cannot be read back"):
        migrate(shelf, "web", "ova", verify="content")
    assert list((shelf.folder / "landing").iterdir()) == []
