# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a keeper undoes on a node where much goes wrong there: no guest stays frozen, and nothing hides the rest."""

from __future__ import annotations

import errno
import json
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, List, cast

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox import (
    guest_freeze,
    leftovers,
    node_undo,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.keeper import Keeper
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.node import CommandFailed
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.removal import insist_on_removable
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec


def a_qm(folder: Path, first_says: str) -> Path:
    """One that fails with these words once; a file of what it was called with, beside it."""
    calls, qm = folder / "calls", folder / "qm"
    qm.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n[ $(wc -l < {calls}) -gt 1 ] && exit 0\necho "{first_says}" >&2\nexit 255\n'
    )
    qm.chmod(0o700)
    return calls


@pytest.mark.parametrize(
    ("said", "times"),
    [("QEMU guest agent is not running", 2), ("VM 100 is not running", 1), ("VM 100 not running", 1)],
)
def test_an_agent_that_does_not_answer_yet_is_asked_again_to_thaw_its_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, times: int
) -> None:
    """It answers nothing while it freezes."""
    calls = a_qm(tmp_path, said)
    (tmp_path / "100.qmp").touch()
    monkeypatch.setattr(node_undo, "QMP_SOCKET", f"{tmp_path}/{{vmid}}.qmp")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    node_undo.undo_frozen({"kind": "frozen", "vmid": 100})
    assert calls.read_text().splitlines() == times * ["guest cmd 100 fsfreeze-thaw"]


def test_what_cannot_be_undone_keeps_nothing_else_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it fails with, and where nothing can be written down either."""
    undone: List[int] = []

    def work(one: dict[str, Any]) -> None:
        if one["vmid"] == 2:
            raise ValueError("QEMU went away in the middle of a line")
        undone.append(one["vmid"])

    def full(*_unused: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "undo.json").write_text(json.dumps([{"kind": "frozen", "vmid": number} for number in (1, 2, 3)]))
    monkeypatch.setitem(node_undo.UNDO, "frozen", work)
    monkeypatch.setattr(node_undo, "write_whole", full)
    with pytest.raises(node_undo.Refused, match="in the middle of a line"):
        node_undo.undo(tmp_path)
    assert undone == [3, 1]


def test_a_volume_that_qemu_may_write_to_still_is_not_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: List[str] = []
    busy = True

    def qemu(_one: dict[str, Any]) -> None:
        if busy:
            raise node_undo.Refused("timeout", "The backup job in QEMU does not end.")

    monkeypatch.setitem(node_undo.UNDO, "qemu", qemu)
    monkeypatch.setitem(node_undo.UNDO, "volume", lambda one: freed.append(one["volume"]))
    written = [{"kind": "volume", "volume": "local:fleece"}, {"kind": "qemu", "vmid": 100}]
    (tmp_path / "undo.json").write_text(json.dumps(written))
    with pytest.raises(node_undo.Refused, match="does not end"):
        node_undo.undo(tmp_path)
    assert (freed, json.loads((tmp_path / "undo.json").read_text())) == ([], written)
    busy = False
    node_undo.undo(tmp_path)
    assert freed == ["local:fleece"]
    assert not tmp_path.exists()


class Storage:
    """Plays a session and a keeper: an export of the VM begins, and another ends, while the volumes are listed."""

    settings = SimpleNamespace(fleecing_storage="")

    def __init__(self) -> None:
        self.made: List[dict[str, str]] = []
        self.freed: List[str] = []
        self.node = SimpleNamespace(run=self._free)

    @contextmanager
    def doing(self, _what: str) -> Iterator[None]:
        yield

    def get(self, _path: str, vmid: int) -> List[dict[str, str]]:
        began, ended, dead = (f"local:{vmid}/vm-{vmid}-vmferry-{attempt * 8}-0.raw" for attempt in "abc")
        self.made = [{"kind": "volume", "volume": began}]
        return [{"volid": volume} for volume in (began, ended, dead)]

    def others(self) -> List[dict[str, Any]]:
        return [{"made": self.made}]

    def _free(self, argv: List[str], timeout: float) -> None:
        if "bbbbbbbb" in argv[-1]:
            raise CommandFailed("pve", argv, 2, f"volume '{argv[-1]}' does not exist")
        self.freed.append(argv[-1])


def test_volumes_of_exports_that_begin_or_end_meanwhile_are_not_those_of_dead_ones() -> None:
    storage = Storage()
    disk = SimpleNamespace(storage="local")
    vm = cast(VmSpec, SimpleNamespace(id="100", name="web", host="pve", disks=[disk]))
    said = list(leftovers._free_volumes(cast(Keeper, storage), cast(Session, storage), vm))
    assert storage.freed == ["local:100/vm-100-vmferry-cccccccc-0.raw"]
    assert len(said) == 1


class Guest:
    """Plays a session and a keeper: its agent fails to freeze as is said, and to thaw so many times."""

    def __init__(self, kind: Kind, thaw_fails: int) -> None:
        self.kind: Kind = kind
        self.thaw_fails, self.thaws, self.noted = thaw_fails, 0, True
        self.node = SimpleNamespace(run=lambda _argv, timeout: self._thaw())

    @contextmanager
    def doing(self, _what: str) -> Iterator[None]:
        yield

    def post(self, path: str) -> None:
        if path.endswith("freeze"):
            raise VmferryError(self.kind, "No freeze.")
        self._thaw()

    def _thaw(self) -> None:
        self.thaws += 1
        if self.thaws <= self.thaw_fails:
            raise VmferryError("unsupported", "QEMU guest agent is not running.")

    def will(self, **_undo: Any) -> int:
        return 1

    def change(self, _number: int) -> None:
        self.noted = False


@pytest.mark.parametrize(
    ("kind", "thaw_fails", "goes_on", "thaws"),
    [("timeout", 0, True, 1), ("network", 2, True, 3), ("timeout", 9, False, 3), ("unsupported", 9, True, 0)],
)
def test_no_export_goes_on_with_a_guest_that_may_be_frozen(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, thaw_fails: int, goes_on: bool, thaws: int
) -> None:
    """A freeze that had no answer may come later; one that was refused does not."""
    monkeypatch.setattr(guest_freeze, "THAW_PAUSE", 0.0)
    guest = Guest(kind, thaw_fails)
    vm = cast(VmSpec, SimpleNamespace(id="100", name="web", host="pve1"))
    with (
        pytest.raises(VmferryError) as failed,
        guest_freeze.frozen(cast(Session, guest), cast(Keeper, guest), vm),
    ):
        raise AssertionError("It was not frozen.")
    assert isinstance(failed.value, guest_freeze.FreezeFailed) == goes_on
    assert (guest.noted, guest.thaws) == (not goes_on, thaws)


def test_a_detached_volume_that_would_go_with_the_vm_keeps_it() -> None:
    """Proxmox VE removes what the configuration calls unused, too."""
    details = {"lock": "", "protected": False, "vmid": 100, "unused_volumes": ["local-lvm:vm-100-disk-7"]}
    vm = cast(VmSpec, SimpleNamespace(id="100", name="web", power_state="powered_off", disks=(), details=details))
    with pytest.raises(VmferryError, match="local-lvm:vm-100-disk-7 would go"):
        insist_on_removable(vm, disks=False)
    insist_on_removable(vm, disks=True)
