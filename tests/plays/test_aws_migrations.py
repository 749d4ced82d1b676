# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays that migrate VMs to and from AWS by way of a store, with credentials that the environment alone names."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rigs.aws import AwsServer
from rigs.domain import Disk, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .playing import ANSIBLE_PLAYBOOK, ROOT

GIB, MIB = 1 << 30, 1 << 20
DATA = random.Random(5).randbytes(MIB)


@dataclass(frozen=True)
class Ends:
    """A hypervisor and an account of AWS, with a folder for what lies between."""

    aws: AwsServer
    rig: LibvirtRig
    folder: Path

    @property
    def libvirt(self) -> dict[str, Any]:
        (self.folder / "scratch").mkdir(exist_ok=True)
        return {"provider": "libvirt", "libvirt": {"uri": self.rig.uri, "scratch_dir": str(self.folder / "scratch")}}

    @property
    def account(self) -> dict[str, Any]:
        """With what the environment does not name."""
        return {"provider": "aws", "aws": {"region": self.aws.region}}

    def play(self, example: str, **variables: Any) -> None:
        """The secret is in nothing that it said."""
        settings = self.aws.settings()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
            "ANSIBLE_LOG_PATH": str(self.folder / "log"),
            "HOME": str(self.folder),
            "VMFERRY_STATE_DIR": str(self.folder / "state"),
            "AWS_ACCESS_KEY_ID": settings["access_key"],
            "AWS_SECRET_ACCESS_KEY": settings["secret_key"],
            "AWS_ENDPOINT_URL": settings["endpoint_url"],
        }
        staging = self.folder / "staging"
        given = {"staging": staging.as_uri(), "ansible_python_interpreter": sys.executable, **variables}
        words = ["-i", "localhost,", "-c", "local", "-e", json.dumps(given)]
        command: list[str | Path] = [ANSIBLE_PLAYBOOK, ROOT / "examples" / example, *words]
        done = subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(staging.rglob("manifest.json")) == []
        for text in (done.stdout, done.stderr, (self.folder / "log").read_text()):
            assert settings["secret_key"] not in text

    def state(self, instance: str) -> str:
        (reservation,) = self.aws.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        return str(reservation["Instances"][0]["State"]["Name"])


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsServer]:
    with AwsServer() as started:
        yield started


@pytest.fixture
def ends(rig: LibvirtRig, aws: AwsServer) -> Iterator[Ends]:
    aws.forget_calls()
    with tempfile.TemporaryDirectory(prefix="vmferry-play-", dir="/tmp") as folder:
        yield Ends(aws, rig, Path(folder))
        for domain in rig.connect().listAllDomains():
            if folder in domain.XMLDesc():
                remove_domain(domain)


def test_vm_of_libvirt_becomes_an_instance_by_the_role(ends: Ends) -> None:
    raw = ends.folder / "old01.raw"
    raw.write_bytes(DATA)
    ends.rig.connect().defineXML(domain_xml(Machine("old01", disks=(Disk(raw, "raw"),)), ends.folder))
    subnet = ends.aws.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    ends.play(
        "migrate_to_aws.yml",
        vm="old01",
        new_name="moved01",
        source=ends.libvirt,
        destination=ends.account,
        subnet=subnet,
        instance_type="m5.large",
        volume_type="gp2",
        encrypted=True,
    )
    ((made, tags),) = ends.aws.leftovers().instances.items()
    assert (tags["Name"], tags["vmferry:source-name"]) == ("moved01", "old01")
    (volume,) = ends.aws.volumes(made).values()
    assert ends.aws.volume_bytes(volume, MIB) == DATA
    told = ends.aws.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]
    assert (told["VolumeType"], told["Encrypted"]) == ("gp2", True)
    instance = ends.aws.ec2.describe_instances(InstanceIds=[made])["Reservations"][0]["Instances"][0]
    assert (instance["SubnetId"], instance["InstanceType"]) == (subnet, "m5.large")
    assert ends.state(made) == "running"
    assert ends.aws.calls("StopInstances") == [], "what is to run is not stopped in between"


@pytest.fixture
def network(rig: LibvirtRig) -> Iterator[str]:
    """Defined, and not started, since nothing is started on it."""
    made = rig.connect().networkDefineXML("<network><name>landing</name></network>")
    yield made.name()
    made.undefine()


def test_instance_becomes_a_vm_of_libvirt_by_the_role(ends: Ends, network: str) -> None:
    instance = ends.aws.make_instance("web01", [DATA])
    images = ends.folder / "images"
    images.mkdir()
    subnet = ends.aws.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["SubnetId"]
    ends.play(
        "migrate_from_aws.yml",
        vm="web01",
        new_name="landed01",
        to="localhost",
        source=ends.account,
        destination=ends.libvirt,
        pool=str(images),
        disk_bus="virtio",
        subnet=subnet,
        network=network,
        start=False,
    )
    assert ends.state(instance) == "stopped"
    domain = ends.rig.connect().lookupByName("landed01")
    assert f"<source network='{network}'/>" in domain.XMLDesc()
    assert "bus='virtio'" in domain.XMLDesc()
    expected = ends.folder / "expected"
    expected.write_bytes(DATA)
    os.truncate(expected, GIB)
    (image,) = images.iterdir()
    command = ["qemu-img", "compare", "-F", "raw", str(image), str(expected)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
