# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports that fail or are killed: of them, nothing stays on the node."""

from __future__ import annotations

import secrets
import subprocess
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers import import_mark
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox import (
    import_leftovers,
    import_session,
    import_vm,
)
from rigs.proxmox import ProxmoxServer

from .importing import SMALL, SYSTEM, Importing, a_vm, killed


def fails(_session: Any) -> None:
    raise RuntimeError("as the test wants it")


@pytest.mark.parametrize("storage", ["local", "block"])
def test_failure_frees_the_volumes_and_the_vmid(pve: ProxmoxServer, importing: Importing, storage: str) -> None:
    with pytest.raises(RuntimeError, match="as the test wants it"):
        importing.run(a_vm(SYSTEM, SMALL), [SYSTEM, SMALL], written=fails, storage=storage)
    assert not pve.leftovers()


def test_failure_keeps_volumes_of_others_that_have_the_same_number(pve: ProxmoxServer, importing: Importing) -> None:
    """As those that were left when a VM of that number was removed without its disks."""
    vmid = pve.first_vmid + 5
    session, content = importing.provider._session, f"nodes/{pve.node}/storage/local/content"
    session.post(content, filename=f"vm-{vmid}-disk-7.raw", vmid=vmid, size="1024", format="raw")
    with pytest.raises(RuntimeError):
        importing.run(a_vm(), [SMALL], written=fails, vmid=vmid)
    volume = f"local:{vmid}/vm-{vmid}-disk-7.raw"
    assert pve.leftovers().volumes == [volume]
    subprocess.run([pve.commands_folder / "pvesm", "free", volume], check=True, capture_output=True)


def test_refused_creation_leaves_nothing(pve: ProxmoxServer, importing: Importing) -> None:
    pve.fault("POST", "/nodes/{node}/qemu", "task", message="no space left on device")
    with pytest.raises(VmferryError, match="Making new failed") as refused:
        importing.run(a_vm(), [SMALL])
    assert refused.value.kind == "no_space"
    assert not pve.leftovers()


def test_creation_whose_answer_was_lost_is_undone(pve: ProxmoxServer, importing: Importing) -> None:
    pve.fault("POST", "/nodes/{node}/qemu", "lose_answer")
    with pytest.raises(VmferryError) as refused:
        importing.run(a_vm(), [SMALL])
    assert refused.value.kind == "network"
    assert not pve.leftovers()


def test_node_that_does_not_say_where_a_volume_is_leaves_nothing(pve: ProxmoxServer, importing: Importing) -> None:
    pve.break_command("pvesm path", "no such storage")
    with pytest.raises(VmferryError, match="pvesm failed"):
        importing.run(a_vm(), [SMALL])
    assert not pve.leftovers()


def test_vm_that_was_started_meanwhile_is_not_finished(pve: ProxmoxServer, importing: Importing) -> None:
    """And not removed either: somebody uses it."""

    def start(session: Any) -> None:
        session.read_back()
        session._serving.close()
        (vmid,) = pve.vms()
        pve.power(vmid, "on")

    opened: list[Any] = []
    with pytest.raises(VmferryError, match="was started meanwhile") as refused:
        importing.run(a_vm(), [SMALL], begun=opened.append, written=start)
    assert refused.value.kind == "conflict"
    assert [told["status"] for told in pve.vms().values()] == ["running"]
    (warning,) = [one for one in opened[0].warnings if "left for the next run" in one]
    assert "is running" in warning or "not off" in warning


def test_vm_that_somebody_changed_meanwhile_is_not_finished(pve: ProxmoxServer, importing: Importing) -> None:
    def change(_session: Any) -> None:
        (vmid,) = pve.vms()
        pve.set(vmid, description="mine now")

    with pytest.raises(VmferryError, match="changed by somebody else"):
        importing.run(a_vm(), [SMALL], written=change)
    assert [told["config"]["description"] for told in pve.vms().values()] == ["mine now"]


def test_what_cannot_be_undone_is_told_and_found_again(
    pve: ProxmoxServer, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_vm, "UNDO_PATIENCE", 0.0)
    pve.fault("DELETE", "/nodes/{node}/qemu/{vmid}", "refuse", message="storage is away")
    opened: list[Any] = []
    with pytest.raises(RuntimeError):
        importing.run(a_vm(), [SMALL], begun=opened.append, written=fails)
    (warning,) = opened[0].warnings
    assert "is left for the next run to remove" in warning
    monkeypatch.setattr(import_mark, "is_owner_alive", lambda owner: False)
    ((name, sentence),) = importing.provider.clean_up_imports()
    assert (name, sentence.startswith("Removed VM ")) == ("new", True)
    assert not pve.leftovers()


def breaks(session: Any) -> None:
    session._keeper.node._master._process.kill()  # the client that holds the connection


def test_broken_connection_to_the_node_leaves_nothing(pve: ProxmoxServer, importing: Importing) -> None:
    """Nothing is removed before it is served no more, by a connection of its own."""
    with pytest.raises(VmferryError) as refused:
        importing.run(a_vm(SYSTEM), [SYSTEM], begun=breaks, storage="block")
    assert refused.value.kind == "network"
    assert not pve.leftovers()


def test_node_that_is_away_when_an_import_fails_is_cleaned_up_later(
    pve: ProxmoxServer, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_given: Any) -> None:
        raise VmferryError("network", "No SSH connection.")

    opened: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(import_session, "let_go", away)
        with pytest.raises(RuntimeError, match="as the test wants it"):
            importing.run(
                a_vm(SYSTEM),
                [SYSTEM],
                begun=opened.append,
                written=lambda session: (breaks(session), fails(session)),
                storage="block",
            )
    (warning,) = opened[0].warnings
    assert warning.endswith("is left for the next run to remove: No SSH connection.")
    assert len(pve.vms()) == 1
    monkeypatch.setattr(import_mark, "is_owner_alive", lambda owner: False)
    assert [name for name, _sentence in importing.provider.clean_up_imports()] == ["new"]
    assert not pve.leftovers()


@pytest.mark.parametrize("failpoint", ["import_made", "import_opened", "window-copied", "import_written"])
def test_killed_import_is_undone_by_the_next(pve: ProxmoxServer, importing: Importing, failpoint: str) -> None:
    killed(failpoint, pve.settings(), secrets.token_hex(16), name="dead", storage="block")
    ((name, sentence),) = importing.provider.clean_up_imports()
    assert (name, sentence.startswith("Removed VM ")) == ("dead", True)
    assert not pve.leftovers()


def test_import_that_was_killed_when_it_was_whole_stays(pve: ProxmoxServer, importing: Importing) -> None:
    killed("import_settled", pve.settings(), secrets.token_hex(16), name="whole", storage="local")
    assert importing.provider.clean_up_imports() == []
    found = importing.provider.imported("whole")
    assert found is not None
    assert pve.disk_bytes(int(found[0].id), 0) == SYSTEM
    left = pve.leftovers()
    assert (left.folders, left.processes, left.volumes) == ([], [], [])


def test_jobs_own_import_is_undone(pve: ProxmoxServer, importing: Importing) -> None:
    job = secrets.token_hex(16)
    killed("import_opened", pve.settings(), job, name="dead", storage="local")
    assert importing.provider.undo(secrets.token_hex(16)) == []
    (sentence,) = importing.provider.undo(job)
    assert "was making dead" in sentence
    assert not pve.leftovers()


def test_living_import_is_not_undone(pve: ProxmoxServer, importing: Importing) -> None:
    job = secrets.token_hex(16)

    def others(_session: Any) -> None:
        assert importing.provider.clean_up_imports() == []
        with pytest.raises(VmferryError, match="is being made by import job") as refused:
            importing.provider.undo(job)
        assert refused.value.kind == "busy"
        half = importing.provider.describe(str(next(iter(pve.vms()))))
        assert half.details["imported_from"] == {}
        with pytest.raises(VmferryError, match="new is being made by import job") as refused:
            importing.provider.remove(half, disks=True)
        assert refused.value.kind == "busy"
        told = importing.provider.check_import(a_vm(), Placement("new", storage="local"), "another")
        assert [one.kind for one in told if one.severity == "error"] == ["busy"]

    importing.run(a_vm(), [SMALL], written=others, job=job)


@pytest.mark.parametrize("touch", [{"name": "kept"}, {"template": 1}])
def test_what_somebody_made_his_own_is_not_undone(
    pve: ProxmoxServer, importing: Importing, touch: dict[str, Any]
) -> None:
    killed("import_made", pve.settings(), secrets.token_hex(16), name="dead", storage="local")
    (vmid,) = pve.vms()
    pve.set(vmid, **touch)
    assert importing.provider.clean_up_imports() == []
    assert list(pve.vms()) == [vmid]


def test_import_that_nobody_can_see_is_dead_once_it_is_held_no_more(
    pve: ProxmoxServer, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed("import_made", pve.settings(), secrets.token_hex(16), name="dead", storage="local")
    monkeypatch.setattr(import_mark, "is_owner_alive", lambda owner: None)
    assert importing.provider.clean_up_imports() == []
    (vmid,) = pve.vms()
    notes = pve.vms()[vmid]["config"]["description"]
    pve.set(vmid, description=notes[: notes.index(" held=")] + " held=1]")
    assert [name for name, _sentence in importing.provider.clean_up_imports()] == ["dead"]
    assert not pve.leftovers()


def test_node_that_cannot_be_reached_keeps_what_it_serves(
    pve: ProxmoxServer, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its VM stays, too: Proxmox VE would forget it with volumes that are in use."""
    killed("import_opened", pve.settings(), secrets.token_hex(16), name="dead", storage="block")

    def away(*_given: Any) -> None:
        raise VmferryError("network", "No SSH connection.")

    with monkeypatch.context() as patch:
        patch.setattr(import_leftovers, "let_go", away)
        ((_name, sentence),) = importing.provider.clean_up_imports()
    assert (sentence.startswith("Left VM "), sentence.endswith("No SSH connection.")) == (True, True)
    assert len(pve.vms()) == 1
    assert len(importing.provider.clean_up_imports()) == 1
    assert not pve.leftovers()
