# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The callback in plays of this ansible-core. Its transfers are played: an action returns what its task says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

PLUGINS = Path(__file__).resolve().parents[4] / "plugins"
SECRET = "correct-horse-battery"
ACTION = """
from __future__ import annotations
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp=None, task_vars=None):
        if self._task.args.get("vm") == "far":
            raise AnsibleConnectionFailure("no route")
        return {"changed": False, **self._task.args["returns"], "invocation": {"module_args": dict(self._task.args)}}
"""
DISKS = [{"bytes_read": 1 << 20, "bytes_stored": 1 << 20}]
FAILED = {
    "failed": True,
    "msg": "There is no room.",
    "error": {"kind": "no_space", "hint": "Make some."},
    "job": {"id": "0123456789", "vm": "db01", "url": "file:///srv"},
}

BEGUN = {"ansible_job_id": "j123.456", "results_file": "/x", "started": True, "finished": False, "changed": True}


def done(vm: str, **result: Any) -> dict[str, Any]:
    export = {"id": "e", "url": f"file:///srv/{vm}", "mode": "full", "vm": {"name": vm}, "disks": DISKS}
    return {"changed": True, "export": export, "job": {"id": "0123456789", "vm": vm, "duration": 1.0}, **result}


def export(returns: Any, **options: Any) -> dict[str, Any]:
    return {"returns": returns, "password": "{{ secret }}", **options}


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This collection, with other actions; and one in which modules have the same names."""
    folder = tmp_path_factory.mktemp("collections")
    own = folder / "ansible_collections/vmferry/migrate/plugins"
    other = folder / "ansible_collections/some/other/plugins"
    for plugins in (own, other):
        for kind in ("action", "modules"):
            (plugins / kind).mkdir(parents=True)
        (plugins / "action/vm_export.py").write_text(ACTION)
        (plugins / "modules/vm_export.py").write_text("")
    for name in ("callback", "plugin_utils", "module_utils"):
        (own / name).symlink_to(PLUGINS / name)
    return folder


@dataclass(frozen=True)
class Ended:
    code: int
    output: str
    audit_log: Path

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]

    def told(self) -> list[tuple[str, ...]]:
        return [tuple(entry[name] for name in ("host", "task", "vm", "outcome")) for entry in self.entries]


def play(
    collections: Path, folder: Path, *tasks: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> Ended:
    """On the hosts h1 and h2. `settings`: of the callback, as in ansible.cfg."""
    whole = {"hosts": "all", "gather_facts": False, "collections": ["vmferry.migrate"], "tasks": list(tasks)}
    (folder / "play.yml").write_text(yaml.safe_dump([whole]))
    settings = {"audit_log": folder / "audit", **(settings or {})}
    lines = [
        "[defaults]",
        f"collections_path = {collections}",
        "callbacks_enabled = vmferry.migrate.transfers",
        f"home = {folder / 'home'}",
        "nocolor = true",
        "deprecation_warnings = true",
        "[callback_vmferry_transfers]",
        *(f"{name} = {value}" for name, value in settings.items()),
    ]
    (folder / "ansible.cfg").write_text("\n".join(lines))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    how = ["-i", "h1,h2", "-c", "local", "-e", f"secret={SECRET}"]  # not in the playbook: core quotes its lines
    ended = subprocess.run(
        [sys.executable, "-m", "ansible.cli.playbook", *how, str(folder / "play.yml")],
        env={**environment, "ANSIBLE_CONFIG": str(folder / "ansible.cfg")},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, folder / "audit")


def test_each_transfer_is_told_once_whatever_its_task_looks_like(collections: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "x.prom"
    name = "vmferry.migrate.vm_export"
    first = "inventory_hostname == 'h1'"
    ended = play(
        collections,
        tmp_path,
        {"name": "Short", "vm_export": export(done("web01"))},
        {"name": "Loop", name: export("{{ item }}"), "loop": [done("a"), FAILED], "ignore_errors": True, "when": first},
        {"name": "Hidden", name: export(done("web01")), "no_log": True, "when": first},
        {"name": "Look", name: export(done("web01")), "check_mode": True, "when": first},
        {"name": "Not ours", "some.other.vm_export": export(done("b"))},
        {"name": "Left out", name: export(done("c")), "when": False},
        {"name": "Again", name: export(FAILED), "until": False, "retries": 1, "delay": 0, "ignore_errors": True},
        {"name": "Begun", name: export(BEGUN), "async": 60, "poll": 0, "when": first},
        {"name": "Begun hidden", name: export(BEGUN), "async": 60, "poll": 0, "no_log": True, "when": first},
        {"name": "Far", name: export(done("far"), vm="far"), "when": first},
        settings={"metrics_file": metrics},
    )
    assert ended.code == 4, ended.output
    assert sorted(ended.told()) == sorted(
        [
            ("h1", "Short", "web01", "ready"),
            ("h2", "Short", "web01", "ready"),
            ("h1", "Loop", "a", "ready"),
            ("h1", "Loop", "db01", "failed"),
            ("h1", "Hidden", "", "ready"),
            ("h1", "Look", "web01", "checked"),
            ("h1", "Again", "db01", "failed"),
            ("h2", "Again", "db01", "failed"),
            ("h1", "Begun", "", "started"),
            ("h1", "Begun hidden", "", "started"),
            ("h1", "Far", "", "unreachable"),
        ]
    )
    assert "TRANSFERS: 4 ready, 3 failed, 1 unreachable, 2 started" in ended.output
    assert 'vmferry_transfer_success{host="h2",vm="web01",kind="export"} 1\n' in metrics.read_text()
    assert 'vmferry_transfer_success{host="h1",vm="",kind="export"} 0\n' in metrics.read_text()
    assert "Make some." in ended.output
    for text in (ended.output, ended.audit_log.read_text(), metrics.read_text()):
        assert SECRET not in text
    assert "[DEPRECATION" not in ended.output
    assert "transfers" not in "".join(line for line in ended.output.splitlines() if "[WARNING]" in line)


def test_a_vm_that_a_batch_leaves_out_is_told_once_as_a_transfer_that_failed(collections: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "x.prom"
    error = {"message": "There is no room.", "hint": "Make some.", "kind": "no_space", "when": "preflight"}
    rows = [{"vm": "db01", "state": "failed", "error": error}, {"vm": "web01", "state": "planned"}]
    asked = {"vm": "db01", "kind": "export", "url": "file:///srv"}
    keep = {"ansible.builtin.set_fact": {"export_fleet_result": rows}}
    on_one_host = {"when": "inventory_hostname == 'h1'"}
    ended = play(
        collections,
        tmp_path,
        {"vm_export": export({**FAILED, "job": asked}), "check_mode": True, "ignore_errors": True, **on_one_host},
        {"name": "Only looked", **keep, "check_mode": True},
        {"name": "Plan", **keep, **on_one_host},
        {"name": "Outcome", **keep, **on_one_host},
        settings={"metrics_file": metrics},
    )
    assert ended.code == 0, ended.output
    assert "TRANSFERS: 1 failed" in ended.output
    assert "no_space: There is no room." in ended.output
    looked, planned = ended.entries
    assert (looked["check"], looked["vm"], looked["url"]) == (True, "db01", "file:///srv")
    assert (planned["check"], planned["task"], planned["vm"], planned["url"]) == (False, "Plan", "db01", "file:///srv")
    assert planned["error"] == {"kind": "no_space", "message": "There is no room."}
    assert 'vmferry_transfer_success{host="h1",vm="db01",kind="export"} 0\n' in metrics.read_text()


def test_files_that_cannot_be_written_give_one_warning_each_and_fail_nothing(collections: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious\n")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    ended = play(
        collections,
        tmp_path,
        {"vm_export": export(done("web01"))},
        {"vm_export": export(done("web01"))},
        settings={"audit_log": tmp_path / "link", "metrics_file": tmp_path / "victim", "table": "false"},
    )
    assert ended.code == 0, ended.output
    flat = " ".join(ended.output.split())
    assert flat.count("are not in the audit log") == 1
    assert flat.count("are not renewed: it holds something else") == 1
    assert (tmp_path / "victim").read_text() == "precious\n"
    assert "TRANSFERS" not in ended.output


def test_a_run_without_transfers_says_nothing(collections: Path, tmp_path: Path) -> None:
    ended = play(collections, tmp_path, {"ansible.builtin.assert": {"that": "true"}})
    assert ended.code == 0, ended.output
    assert "TRANSFERS" not in ended.output
    assert not ended.audit_log.exists()
