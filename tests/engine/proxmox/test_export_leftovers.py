# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports that die: what they made on a node is undone there, at once or by the next."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox import node_keeper
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.keeper import Keeper
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.local_node import LocalNode
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.node_undo import started_of
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from rigs.proxmox import ProxmoxServer
from rigs.proxmox.server import RUN

from .exporting import LEAF, a_job, an_export, begins, contents, disk, noise

PATIENCE = 60.0  # seconds; on a quiet machine it takes none


def wait_for(done: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def dies_at(point: str, settings: dict[str, Any], vmid: int, job: Job) -> None:
    """In another process, as by a power cut of the worker."""
    process = multiprocessing.get_context("spawn").Process(target=begins, args=(point, settings, vmid, job))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL, f"it never came to {point}"


def keeper_of(job: Job) -> int:
    return int(json.loads((RUN / job.job_id / "owner.json").read_text())["pid"])


@pytest.mark.parametrize(
    ("point", "running"),
    [("disks_served", False), ("fleece_prepared", True), ("frozen", True), ("backup_begun", True)],
)
def test_a_worker_that_is_killed_leaves_nothing_on_the_node_and_no_guest_frozen(
    cluster: ProxmoxServer, settings: dict[str, Any], point: str, running: bool
) -> None:
    vmid = cluster.make_vm("web", [disk()], running, storage="thin", agent="1")
    if running:
        cluster.agent(vmid)
    dies_at(point, settings, vmid, a_job())
    wait_for(lambda: not cluster.leftovers(), "what it had made goes")
    if running:
        assert not cluster.agent_asked(vmid)["frozen"]
        cluster.write(vmid, 0, 0, noise(LEAF))


@pytest.mark.parametrize("running", [True, False])
def test_what_was_killed_with_its_keeper_is_undone_by_the_next_export(
    cluster: ProxmoxServer, provider: ProxmoxProvider, settings: dict[str, Any], running: bool
) -> None:
    vmid, job = cluster.make_vm("web", [disk()], running), a_job()
    stack = ExitStack()
    session = stack.enter_context(an_export(provider, vmid, job, keep=True))
    os.kill(keeper_of(job), signal.SIGKILL)
    wait_for(lambda: started_of(keeper_of(job)) is None, "the keeper is dead")
    assert cluster.leftovers().folders
    (undone,) = provider.clean_up(provider.describe(str(vmid)))
    assert job.job_id in undone.sentence
    assert not cluster.leftovers()
    stack.close()
    assert "is undone there" in session.warnings[-1]
    with an_export(provider, vmid) as again:
        assert contents(again)["scsi0"] == cluster.disk_bytes(vmid, 0)


def test_an_export_that_lives_is_nobody_s_to_clean_up(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid, job = cluster.make_vm("web", [disk()], True), a_job()
    with an_export(provider, vmid, job) as session:
        with pytest.raises(VmferryError, match=f"web is in use by export job {job.job_id}") as refused:
            provider.clean_up(provider.describe(str(vmid)))
        assert refused.value.kind == "busy"
        with pytest.raises(VmferryError, match="in use"):
            provider.undo(job.job_id)
        assert contents(session)["scsi0"] == cluster.disk_bytes(vmid, 0)


def test_one_of_which_its_store_knows_that_it_is_dead_is_ended(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    """As where its worker's host was switched off: the connection seems to live for a while."""
    vmid, job = cluster.make_vm("web", [disk()], True), a_job()
    stack = ExitStack()
    session = stack.enter_context(an_export(provider, vmid, job))
    assert len(provider.clean_up(provider.describe(str(vmid)), dead=[job.attempt])) == 1
    assert not cluster.leftovers()
    with pytest.raises(VmferryError):
        contents(session)
    stack.close()


def test_a_job_is_undone_by_its_id_and_no_other_is(
    cluster: ProxmoxServer, provider: ProxmoxProvider, settings: dict[str, Any]
) -> None:
    vmid, job = cluster.make_vm("web", [disk()]), a_job()
    stack = ExitStack()
    stack.enter_context(an_export(provider, vmid, job))
    os.kill(keeper_of(job), signal.SIGKILL)
    wait_for(lambda: started_of(keeper_of(job)) is None, "the keeper is dead")
    assert provider.undo(a_job().job_id) == []
    assert len(provider.undo(job.job_id)) == 1
    assert not cluster.leftovers()
    stack.close()


def test_a_volume_that_a_node_forgot_when_it_was_switched_off_is_known_by_its_name(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid, job = cluster.make_vm("web", [disk()], True), a_job()
    stack = ExitStack()
    stack.enter_context(an_export(provider, vmid, job))
    keeper = keeper_of(job)
    for file in (RUN / job.job_id).glob("*"):
        file.unlink()
    os.kill(keeper, signal.SIGKILL)
    cluster.power(vmid, "crash")
    (RUN / job.job_id).rmdir()
    assert len(cluster.leftovers().volumes) == 1
    vm = provider.describe(str(vmid))
    (undone,) = provider.clean_up(vm)
    assert f"vm-{vmid}-vmferry-{job.attempt}-0.raw" in undone.sentence
    assert not cluster.leftovers()
    assert not provider.clean_up(vm)
    stack.close()


def test_what_is_made_on_the_node_is_root_s_alone(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid, job = cluster.make_vm("web", [disk()]), a_job()
    with an_export(provider, vmid, job):
        folder = RUN / job.job_id
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folder.iterdir()}
        assert len(modes) > 2
        assert not any(modes.values()), modes


def test_an_order_that_is_not_understood_leaves_nothing_behind(cluster: ProxmoxServer) -> None:
    """As one of another release would be: whoever gave it is told, and what was made is undone as ever."""
    job = a_job()
    folder = RUN / job.job_id
    keeper = Keeper(LocalNode())
    keeper.open(job, "export", "100", "web")
    for order, said in (({"do": "stop", "number": 99, "patience": 1}, "KeyError: 99"), ({"do": "dance"}, "dance")):
        with pytest.raises(VmferryError, match=said) as failed:
            keeper.ask(order)
        assert failed.value.kind == "internal"
    assert folder.exists()
    keeper._send(b"no order at all\n")
    wait_for(lambda: not folder.exists(), "it was not undone")
    with suppress(VmferryError):  # unless its last word came in time
        keeper.close()


def test_before_a_storage_is_full_and_the_guest_fails_the_export_ends(
    cluster: ProxmoxServer, provider: ProxmoxProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rule alone: what watches a file system undoes what fills it, and says so."""
    monkeypatch.setattr(node_keeper, "RUN_FOLDER", tmp_path)
    keeper = node_keeper.Keeper()
    keeper.do_open("job", {})
    undone: list[dict[str, Any]] = []
    monkeypatch.setattr(node_keeper, "undo_one", undone.append)
    numbers = [keeper.do_will({"kind": "qemu", "watch": [str(tmp_path)]}), keeper.do_will({"kind": "volume"})]
    keeper.look()
    assert (undone, keeper.do_stopped()) == ([], [])
    found = os.statvfs(tmp_path)
    low = os.statvfs_result((*found[:3], *(1, 1), *found[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: low)
    keeper.look()
    assert [one["number"] for one in undone] == keeper.do_stopped() == numbers[:1]
    assert [one["number"] for one in json.loads((tmp_path / "job/undo.json").read_text())] == numbers[1:]
