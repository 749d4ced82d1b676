# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are others by the time that a job has its slot than they were when it was planned."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.held_files import HeldFiles
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Provider

from ..appliances.archives import archive, sums
from .shelf import GUEST, Shelf, refused


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something happen while a job waits for its slot."""

    def happens(work: Callable[[], object]) -> None:
        wait = RunningJob.wait_for_slot

        def waited(job: RunningJob, provider: Provider) -> None:
            work()
            wait(job, provider)

        monkeypatch.setattr(RunningJob, "wait_for_slot", waited)

    return happens


Meanwhile = Callable[[Callable[[], object]], None]


@pytest.mark.parametrize("change", ["added before", "added behind", "removed", "resized", "another format"])
def test_a_folder_that_is_another_set_of_disks_is_not_exported(shelf: Shelf, meanwhile: Meanwhile, change: str) -> None:
    first = shelf.raw("db/a.img", b"A" * LEAF)
    shelf.raw("db/b.img", b"B" * LEAF)
    work: dict[str, Callable[[], object]] = {
        "added before": lambda: shelf.raw("db/0.img", b"0" * LEAF),
        "added behind": lambda: shelf.raw("db/c.img", b"C" * LEAF),
        "removed": first.unlink,
        "resized": lambda: os.truncate(first, 2 * LEAF),
        "another format": lambda: shelf.image("db/a.img", "qcow2"),
    }
    meanwhile(work[change])
    error = refused(lambda: shelf.export("db", disks=("b.img",)), "conflict", "db/ is not what it was when its export")
    assert error.retryable
    assert shelf.stored() == []


def test_what_is_written_while_the_job_waits_is_exported(shelf: Shelf, meanwhile: Meanwhile) -> None:
    path = shelf.raw("web.raw", bytes(len(GUEST)))
    os.truncate(path, 0)
    os.truncate(path, len(GUEST))
    meanwhile(lambda: path.write_bytes(GUEST))
    assert shelf.content(shelf.export("web.raw")) == GUEST


def test_an_ova_with_other_hardware_is_not_exported_as_the_one_before(shelf: Shelf, meanwhile: Meanwhile) -> None:
    files = shelf.ova()
    other = {"app.ovf": files["app.ovf"].replace(b">2048<", b">9216<"), "d.vmdk": files["d.vmdk"]}
    assert other["app.ovf"] != files["app.ovf"]
    meanwhile(lambda: (shelf.images / "app.ova").write_bytes(archive({**other, "app.mf": sums(other)})))
    refused(lambda: shelf.export("app.ova"), "conflict", "app.ova is not what it was when its export")
    assert shelf.stored() == []


@pytest.mark.parametrize("name", ["app.ova", "packed/app.ovf"])
def test_what_is_exported_of_an_appliance_is_what_was_stamped(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is replaced right before the session takes its stamps, with one of the same size and disks."""
    files = shelf.ova(checked=False)
    for member, data in files.items():
        shelf.raw(f"packed/{member}", data)
    other = files["app.ovf"].replace(b">2048<", b">9216<")
    stamp, stamped = HeldFiles.__init__, []

    def late(held: HeldFiles, *args: object, **named: object) -> None:
        stamped.append(held)
        if len(stamped) == 2:  # the first are the preflight's
            shelf.raw("app.ova", archive({**files, "app.ovf": other}))
            shelf.raw("packed/app.ovf", other)
        stamp(held, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(HeldFiles, "__init__", late)
    refused(lambda: shelf.export(name), "conflict", "app.ov")
    assert len(stamped) == 2
    assert shelf.stored() == []


def test_an_image_that_grows_right_before_it_is_stamped_is_not_exported(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shelf.raw("web.raw")
    stamp, stamped = HeldFiles.__init__, []

    def late(held: HeldFiles, *args: object, **named: object) -> None:
        stamped.append(held)
        if len(stamped) == 2:
            os.truncate(path, len(GUEST) + LEAF)
        stamp(held, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(HeldFiles, "__init__", late)
    refused(lambda: shelf.export("web.raw"), "conflict", "web.raw is not what it was")
