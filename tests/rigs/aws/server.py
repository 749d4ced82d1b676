# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An account of AWS as a server of tests: its settings, its machines, and what tests do behind its back."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rigs.aws.blocks import BLOCK, GIB
from rigs.aws.keys import ACCESS_KEY, ACCOUNT, ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY, REGION, SECRET_KEY
from rigs.ports import free_port
from rigs.server_process import running

ROOT = "/dev/sda1"
TYPE = "t3.micro"


@dataclass(frozen=True)
class Leftovers:
    """What exists and carries a tag of the project: the tags by id."""

    snapshots: Mapping[str, Mapping[str, str]]
    images: Mapping[str, Mapping[str, str]]
    volumes: Mapping[str, Mapping[str, str]]
    instances: Mapping[str, Mapping[str, str]]  # those that are not terminated

    def __bool__(self) -> bool:
        return any((self.snapshots, self.images, self.volumes, self.instances))


def interpreter() -> str:
    """Of a Python that moto runs with: it needs a newer one than hosts may have."""
    newest = Path(__file__).resolve().parents[3] / ".venv/bin/python"
    return str(newest) if sys.version_info < (3, 10) and newest.exists() else sys.executable


class AwsServer:
    region = REGION
    account = ACCOUNT

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> AwsServer:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmferry-aws-")))
            self._folder = folder
            self.port = free_port()
            self.endpoint_url = f"http://127.0.0.1:{self.port}"
            environment = {
                **os.environ,
                "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
                "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
            }
            command = [interpreter(), "-m", "rigs.aws.app", str(self.port), str(folder)]
            ready = f"{self.endpoint_url}/_rig/ready"
            self.process = stack.enter_context(running(command, ready, folder / "log", environment))
            self._image = str(self._ask("ready")["image"])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    # --- what a client needs ------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """The settings of the provider that reach it."""
        return {
            "endpoint_url": self.endpoint_url,
            "sts_endpoint_url": self.endpoint_url,
            "region": self.region,
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
        }

    def client(self, service: str) -> Any:
        """The administrator's, whose calls are neither counted nor met by faults."""
        import boto3

        made: Any = boto3.client
        return made(
            service,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=ADMIN_ACCESS_KEY,
            aws_secret_access_key=ADMIN_SECRET_KEY,
            region_name=self.region,
        )

    @cached_property
    def ec2(self) -> Any:
        return self.client("ec2")

    # --- machines -----------------------------------------------------------------------------------------------------

    def make_instance(
        self,
        name: str,
        disks: Sequence[bytes | Path] = (b"",),
        *,
        running: bool = True,
        type: str = TYPE,
        tags: Mapping[str, str] | None = None,
        encrypted: bool = False,
        image: str = "",
        sizes: Sequence[int] = (),
    ) -> str:
        """Its id. The first disk is /dev/sda1, then come /dev/sdb and on; `sizes`: GiB, else what the data needs."""
        lengths = [disk.stat().st_size if isinstance(disk, Path) else len(disk) for disk in disks]
        whole = sizes or [max(1, -(-length // GIB)) for length in lengths]
        devices = [ROOT, *(f"/dev/sd{chr(ord('b') + number)}" for number in range(len(disks) - 1))]
        named = [{"Key": key, "Value": value} for key, value in {"Name": name, **(tags or {})}.items()]
        made = self.ec2.run_instances(
            ImageId=image or self._image,
            InstanceType=type,
            MinCount=1,
            MaxCount=1,
            BlockDeviceMappings=[
                {
                    "DeviceName": device,
                    "Ebs": {
                        "VolumeSize": size,
                        "VolumeType": "gp3",
                        "DeleteOnTermination": True,
                        **({"Encrypted": True} if encrypted else {}),
                    },
                }
                for device, size in zip(devices, whole)
            ],
            TagSpecifications=[{"ResourceType": "instance", "Tags": named}],
        )
        instance = str(made["Instances"][0]["InstanceId"])
        for device, disk in zip(devices, disks):
            self.load(self.volumes(instance)[device], disk)
        if not running:
            self.ec2.stop_instances(InstanceIds=[instance])
        return instance

    def terminate(self, *instances: str) -> None:
        """With all their volumes, whoever attached them."""
        for instance in instances:
            volumes = self.volumes(instance).values()
            self.ec2.terminate_instances(InstanceIds=[instance])
            for told in self.ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": list(volumes)}])["Volumes"]:
                self.ec2.delete_volume(VolumeId=told["VolumeId"])

    def volumes(self, instance: str) -> dict[str, str]:
        """By device, in the order in which they were attached."""
        (reservation,) = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        mapped = reservation["Instances"][0]["BlockDeviceMappings"]
        return {one["DeviceName"]: one["Ebs"]["VolumeId"] for one in mapped}

    def load(self, volume: str, disk: bytes | Path) -> None:
        """From its beginning on; the rest was never written to."""
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            path = disk
            if not isinstance(path, Path):
                path = Path(scratch) / "disk"
                path.write_bytes(disk)  # type: ignore[arg-type]
            self._ask("load", str(path.resolve()).encode(), volume=volume)

    def write(self, volume: str, offset: int, data: bytes) -> None:
        """As the guest does. Zeros are written as well as anything else."""
        self._ask("write", data, volume=volume, offset=offset)

    def discard(self, volume: str, offset: int, length: int) -> None:
        """Reads as zeros afterwards; snapshots have no longer what was whole blocks."""
        self._ask("discard", volume=volume, offset=offset, length=length)

    def volume_bytes(self, volume: str, length: int | None = None) -> bytes:
        """From its beginning on; None: up to the end of the last block that is there, and zeros follow."""
        return self._bytes(volume, length)

    def snapshot_bytes(self, snapshot: str, length: int | None = None) -> bytes:
        return self._bytes(snapshot, length)

    def blocks(self, of: str) -> list[int]:
        """Indexes of what a volume or a snapshot has; all others are zeros."""
        found: list[int] = self._ask("blocks", of=of)
        return found

    def _bytes(self, of: str, length: int | None) -> bytes:
        if length is None:
            length = max(self.blocks(of), default=-1) * BLOCK + BLOCK
        return self._open("bytes", b"", of=of, length=length)

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def fault(
        self,
        operation: str,
        kind: str,
        *,
        times: int = 1,
        skip: int = 0,
        match: str = "",
        seconds: float = 0.0,
        code: str = "",
        status: int = 400,
    ) -> None:
        """The next calls of it ("GetSnapshotBlock") meet this; the kinds stand in `faults.py`.

        `match`: what the path or the parameters contain; `skip` calls go well before; `times`: -1 is until `heal`.
        `code`, `status`: of `refuse`, by EC2 or STS; `seconds`: of `slow`.
        """
        given = {"on": operation, "kind": kind, "times": times, "skip": skip, "match": match}
        self._ask("fault", {**given, "seconds": seconds, "code": code, "status": status})

    def heal(self) -> None:
        """No fault is waiting any more."""
        self._ask("heal")

    def expire_tokens(self) -> None:
        """Those of blocks and of pages that were given until now, as if a week had gone by."""
        self._ask("expire")

    def change(self, **settings: int) -> None:
        """`polls`: how often a snapshot that is made from now on has to be described before it is completed (1);
        `page`: blocks that one page has at most, whatever is asked for (10,000).
        """
        self._ask("change", settings)

    def export_tasks(self, **wishes: Any) -> dict[str, str]:
        """The states of all by their ids. With `polls`, `ends` (completed, failed, never) and `message`: what becomes
        of those that begin from now on."""
        found: dict[str, str] = self._ask("export_tasks", wishes or b"")
        return found

    def import_tasks(self, **wishes: Any) -> dict[str, dict[str, Any]]:
        """As of exports: the `state` and the `tags` of all by their ids."""
        found: dict[str, dict[str, Any]] = self._ask("import_tasks", wishes or b"")
        return found

    def fail_snapshot(self, snapshot: str) -> None:
        """It is in the state `error`."""
        self._ask("fail", snapshot=snapshot)

    # --- what happened ------------------------------------------------------------------------------------------------

    def calls(self, operation: str = "") -> list[str]:
        """In order, as policies name them (`ebs:GetSnapshotBlock`); of one operation, if it is named."""
        made: list[str] = self._ask("calls_made")
        return [each for each in made if operation in ("", each, each.partition(":")[2])]

    def permissions(self) -> set[str]:
        """What a policy has to allow for the calls, which is also the tags that come with a request, and the like."""
        return set(self._ask("permissions_used"))

    def forget_calls(self) -> None:
        self._ask("forget")

    def leftovers(self) -> Leftovers:
        return Leftovers(**self._ask("leftovers"))

    def _ask(self, path: str, body: Mapping[str, Any] | bytes = b"", **words: object) -> Any:
        return json.loads(self._open(path, body if isinstance(body, bytes) else json.dumps(body).encode(), **words))

    def _open(self, path: str, body: bytes, **words: object) -> bytes:
        url = f"{self.endpoint_url}/_rig/{path}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST")) as response:
                found: bytes = response.read()
        except urllib.error.HTTPError as problem:
            raise RuntimeError(f"{path}: {problem.read().decode(errors='replace').strip()}") from problem
        return found
