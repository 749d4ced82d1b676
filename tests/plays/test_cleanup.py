# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports are deleted by the role that makes them, and with the control node's credentials."""

from __future__ import annotations

from typing import Any

from rigs.s3_server import S3Server
from rigs.sshd import SshServer

from .playing import Stage
from .test_live_credentials import BUCKET, of_controller, s3_server

__all__ = ["s3_server"]  # a fixture


def role(stage: Stage, **variables: Any) -> dict[str, Any]:
    known = {f"vm_export_{name}": value for name, value in stage.options(vm=None, **variables).items()}
    return {
        "ansible.builtin.include_role": {"name": "vmferry.migrate.vm_export"},
        "vars": {"vm_export_vms": [stage.vm], "vm_export_mode": "full", "vm_export_verify": "none", **known},
    }


def manifests(stage: Stage) -> list[str]:
    return [name for name in stage.stored() if name.endswith("manifest.json")]


def test_the_role_deletes_what_is_not_to_be_kept_and_keeps_the_rest(stage: Stage) -> None:
    told = {"ansible.builtin.debug": {"var": "vm_export_cleanup_result.deleted"}}
    (stage.store / "notes.txt").write_text("not ours")
    stage.play(role(stage, cleanup={"max_count": 1}, name="first"), told).wait()
    (first,) = manifests(stage)
    stage.play(role(stage, name="second"), role(stage, name="third", cleanup={"max_count": 2}), told).wait()
    assert len(manifests(stage)) == 2
    assert first not in manifests(stage)
    kept = stage.stored()
    stage.play(role(stage, name="fourth", cleanup={"max_count": 1}), arguments=["--check"]).wait()
    assert stage.stored() == kept
    mistaken = stage.play(role(stage, name="fifth", cleanup={"max_number": 1})).wait(2)
    assert "max_number" in mistaken.output
    assert stage.stored() == kept


def test_a_cleanup_gets_the_credentials_of_the_control_node(
    stage: Stage,
    ssh_server: SshServer,
    s3_server: S3Server,
) -> None:
    options = {"url": f"s3://{BUCKET}/cleanup", "storage": {"addressing_style": "path"}, "max_age": "30d"}
    host, environment = {"kvm1": ssh_server.variables}, of_controller(s3_server)
    task = {"vmferry.migrate.export_cleanup": options, "register": "done"}
    assert stage.play(task, hosts=host, environment=environment).wait().result()["exports"] == []
    refused = {"vmferry.migrate.export_cleanup": {**options, "credentials_from": "target"}}
    stage.play(refused, hosts=host, environment=environment).wait(2)
