# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last node of the workflow, run as AWX runs it: the store's credential is in the environment, and nowhere else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine.exports.samples import manifest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import vm_folder
from rigs.s3_server import S3Server
from rigs.seaweedfs import seaweedfs

from .awx import EXAMPLES, ROOT, command_lines, credential_types, injected

BUCKET, HOUR = "exports", 3600.0
URL = f"s3://{BUCKET}/vms"
EXPORTS = {"web01": 2 * HOUR, "db01": 40 * HOUR, "idle01": 40 * HOUR}  # and how old they are
CHECKED = time.strftime(
    "%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - HOUR)
)  # when idle01 was seen not to have changed
UUIDS = {name: f"1f0c9a2b-3c4d-4e5f-8a9b-0c1d2e3f4a5{number}" for number, name in enumerate(EXPORTS)}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with seaweedfs() as started:
        client = started.client()
        client.create_bucket(Bucket=BUCKET)
        for number, (name, age) in enumerate(EXPORTS.items()):
            taken = time.time() - age
            export_id = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(taken)) + f"-1a2b3c4{number}"
            sample = manifest(export_id, name="nightly", taken_at=taken, created_at=taken + 60)
            sample = replace(sample, machine=replace(sample.machine, name=name, id=UUIDS[name]))
            folder = f"vms/{vm_folder(name, UUIDS[name])}/{export_id}"
            text = sample.to_json(lambda file, folder=folder: f"s3://{BUCKET}/{folder}/{file}")  # type: ignore[misc]
            client.put_object(Bucket=BUCKET, Key=f"{folder}/manifest.json", Body=text)
            if name == "idle01":
                mark = json.dumps({"checked_at": CHECKED, "job_id": "5f0c41d27a3e4b91"})
                client.put_object(Bucket=BUCKET, Key=f"{folder}/checked.json", Body=mark)
        yield started
        os.kill(started.pid, signal.SIGKILL)  # an orderly end takes it half a minute


@dataclass
class Ended:
    code: int
    output: str
    commands: set[str] = field(default_factory=set)  # command lines of all processes of the machine while it ran


def report(server: S3Server, folder: Path, hosts: Mapping[str, Any], **answers: Any) -> Ended:
    keys = {"endpoint_url": server.endpoint_url, "access_key": server.access_key, "secret_key": server.secret_key}
    inventory, variables = folder / "hosts.yml", folder / "answers.json"
    common = {"export_fleet_storage": {"addressing_style": "path"}, "ansible_python_interpreter": sys.executable}
    inventory.write_text(yaml.safe_dump({"all": {"hosts": dict(hosts), "vars": common}}))
    asked = {"export_fleet_url": URL, "export_fleet_hosts": "all", "report_hours": 0, "report_exports_failed": "no"}
    variables.write_text(json.dumps({**asked, **answers}))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        **injected(credential_types()["S3 server"], keys),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_LOCALHOST_WARNING": "0",
    }
    playbook = EXAMPLES / "plays/report_exports.yml"
    command = ["ansible-playbook", "-i", str(inventory), "-e", f"@{variables}", str(playbook)]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
        commands: set[str] = set()
        while process.poll() is None:
            commands |= command_lines()
            time.sleep(0.01)
    return Ended(process.returncode, log.read_text(), commands)


def test_report_finds_the_exports_with_a_credential_that_is_on_no_command_line(
    server: S3Server, tmp_path: Path
) -> None:
    ended = report(server, tmp_path, {"web01": {}, "db01": {}})
    assert ended.code == 0, ended.output
    for name in EXPORTS:
        assert f"{URL}/{vm_folder(name, UUIDS[name])}/" in ended.output
    assert any("AnsiballZ_export_info" in line for line in ended.commands), "the module was not seen running"
    assert not [line for line in ended.commands if server.secret_key in line]
    assert server.secret_key not in ended.output


def test_report_names_the_vms_without_an_export(server: S3Server, tmp_path: Path) -> None:
    hosts = {
        "web01": {},
        "database": {"export_fleet_vm": "db01"},
        "mail01": {},
        "by_uuid": {"export_fleet_vm": UUIDS["web01"]},
        "kvm01": {"export_fleet_filters": {"name": "*"}},
    }
    ended = report(server, tmp_path, hosts)
    assert ended.code == 2
    assert "No such export: mail01\n" in ended.output.replace('"', "\n")


def test_report_counts_only_exports_that_are_recent_and_have_the_name(server: S3Server, tmp_path: Path) -> None:
    hosts: dict[str, Any] = {"web01": {}, "db01": {}}
    late = report(server, tmp_path, hosts, report_hours=26)
    assert late.code == 2
    assert "No such export: db01\n" in late.output.replace('"', "\n")
    assert report(server, tmp_path, hosts, export_fleet_name="nightly", export_fleet_hosts="web*").code == 0
    other = report(server, tmp_path, hosts, export_fleet_name="weekly")
    assert "No such export: db01, web01\n" in other.output.replace('"', "\n")


def test_report_counts_an_old_export_as_recent_where_its_vm_was_seen_unchanged(
    server: S3Server, tmp_path: Path
) -> None:
    ended = report(server, tmp_path, {"idle01": {}}, report_hours=26)
    assert ended.code == 0, ended.output
    assert f"unchanged at {CHECKED}" in ended.output


def test_report_after_failed_exports_shows_them_and_fails(server: S3Server, tmp_path: Path) -> None:
    ended = report(server, tmp_path, {"web01": {}, "db01": {}}, report_exports_failed="yes")
    assert ended.code == 2
    assert f"{URL}/{vm_folder('web01', UUIDS['web01'])}/" in ended.output
    assert "Exports failed." in ended.output


def test_report_about_hosts_that_do_not_exist_fails_and_says_so(server: S3Server, tmp_path: Path) -> None:
    ended = report(server, tmp_path, {"web01": {}, "db01": {}}, export_fleet_hosts="wbe*")
    assert ended.code == 2
    assert 'No host of the inventory fits "wbe*".' in ended.output.replace('\\"', '"')
