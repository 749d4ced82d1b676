# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests do behind the services' backs, at /_rig/: write to volumes as guests do, look at bytes, make faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from moto.ec2.models import ec2_backends
from moto.ec2.utils import random_ami_id

from rigs.aws.blocks import Content, Disks, Stored
from rigs.aws.ebs import EbsDirect
from rigs.aws.ec2_images import ROOT, Image
from rigs.aws.export_tasks import ExportTasks, Wishes
from rigs.aws.faults import Faults, asked_of
from rigs.aws.import_tasks import ImportTasks
from rigs.aws.instance_tasks import InstanceTasks
from rigs.aws.keys import ACCOUNT, REGION

OURS = "vmferry:"  # how tags of the project begin


class Control:
    def __init__(
        self,
        disks: Disks,
        faults: Faults,
        calls: list[str],
        permissions: set[str],
        ebs: EbsDirect,
        tasks: ExportTasks,
        instances: InstanceTasks,
        imports: ImportTasks,
    ) -> None:
        self._disks = disks
        self._faults = faults
        self._calls = calls
        self._permissions = permissions
        self._ebs = ebs
        self._tasks = tasks
        self._instances, self._imports = instances, imports
        self._image = _base_image(disks)

    def __call__(self, environ: dict[str, Any], body: bytes, start_response: Callable[..., Any]) -> Iterable[bytes]:
        words = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        told = getattr(self, "_" + environ["PATH_INFO"].removeprefix("/_rig/"))(words, body)
        if not isinstance(told, bytes):
            told = json.dumps(told).encode()
        start_response("200 OK", [("Content-Length", str(len(told)))])
        return [told]

    def _ready(self, _words: dict[str, str], _body: bytes) -> Any:
        return {"image": self._image}

    def _load(self, words: dict[str, str], body: bytes) -> Any:
        """An image of a disk into a volume, of which nothing else is left."""
        content = self._disks.blocks.load(Path(body.decode()))
        with self._disks.lock:
            self._disks.volumes[words["volume"]] = content
        return None

    def _write(self, words: dict[str, str], body: bytes) -> Any:
        with self._disks.lock:
            self._disks.blocks.write(self._disks.volumes[words["volume"]], int(words["offset"]), body)
        return None

    def _discard(self, words: dict[str, str], _body: bytes) -> Any:
        with self._disks.lock:
            content = self._disks.volumes[words["volume"]]
            self._disks.blocks.discard(content, int(words["offset"]), int(words["length"]))
        return None

    def _content(self, words: dict[str, str]) -> Content:
        with self._disks.lock:
            if words["of"].startswith("snap-"):
                return dict(self._disks.snapshots[words["of"]].content)
            return dict(self._disks.volumes[words["of"]])

    def _bytes(self, words: dict[str, str], _body: bytes) -> bytes:
        return b"".join(self._disks.blocks.bytes_of(self._content(words), int(words["length"])))

    def _blocks(self, words: dict[str, str], _body: bytes) -> list[int]:
        return sorted(self._content(words))

    def _fault(self, _words: dict[str, str], body: bytes) -> Any:
        self._faults.add(asked_of(json.loads(body)))
        return None

    def _heal(self, _words: dict[str, str], _body: bytes) -> Any:
        self._faults.heal()
        return None

    def _expire(self, _words: dict[str, str], _body: bytes) -> Any:
        self._ebs.expire_tokens()
        return None

    def _change(self, _words: dict[str, str], body: bytes) -> Any:
        for name, value in json.loads(body).items():
            if name not in ("polls", "page"):
                raise ValueError(f"there is no {name}")
            setattr(self._disks, name, value)
        return None

    def _export_tasks(self, _words: dict[str, str], body: bytes) -> Any:
        """What becomes of those that begin from now on; of all, their states."""
        if body:
            self._tasks.wishes = Wishes(**json.loads(body))
        return {task.id: task.state for tasks in (self._tasks, self._instances) for task in tasks.all.values()}

    def _import_tasks(self, _words: dict[str, str], body: bytes) -> Any:
        """As those of exports; of all, their states and their tags."""
        if body:
            self._imports.wishes = Wishes(**json.loads(body))
        return {task.id: {"state": task.state, "tags": task.tags} for task in self._imports.all.values()}

    def _fail(self, words: dict[str, str], _body: bytes) -> Any:
        self._disks.snapshots[words["snapshot"]].failed = True
        return None

    def _calls_made(self, _words: dict[str, str], _body: bytes) -> list[str]:
        return list(self._calls)

    def _permissions_used(self, _words: dict[str, str], _body: bytes) -> list[str]:
        return sorted(self._permissions)

    def _forget(self, _words: dict[str, str], _body: bytes) -> Any:
        self._calls.clear()
        self._permissions.clear()
        return None

    def _leftovers(self, _words: dict[str, str], _body: bytes) -> dict[str, dict[str, dict[str, str]]]:
        """By kind and id: the tags of what exists and carries one of ours."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        for backend in (ec2_backends[ACCOUNT][REGION],):
            instances = {one.id: one for one in backend.all_instances() if one.state != "terminated"}
            for kind, things in (
                ("snapshots", backend.snapshots),
                ("images", backend.amis),
                ("volumes", backend.volumes),
                ("instances", instances),
            ):
                tags = {name: dict(backend.tags.get(name, {})) for name in list(things)}
                ours = {name: held for name, held in tags.items() if any(key.startswith(OURS) for key in held)}
                found[kind] = ours
        return found


def _base_image(disks: Disks) -> str:
    """Of which the tests' instances are made: a root disk of 1 GiB with nothing on it."""
    backend = ec2_backends[ACCOUNT][REGION]
    volume = backend.create_volume(1, f"{REGION}a")
    snapshot = backend.create_snapshot(volume.id, "the root disk of the base image")
    backend.delete_volume(volume.id)
    stored: Stored = disks.snapshots[snapshot.id]
    stored.polls = 0
    ebs = {"SnapshotId": snapshot.id, "VolumeSize": 1, "VolumeType": "gp3", "DeleteOnTermination": True}
    asked = {
        "Name": "base",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "EnaSupport": True,
        "BootMode": "uefi-preferred",
        "RootDeviceName": ROOT,
    }
    image = Image(backend, random_ami_id(), asked, [{"DeviceName": ROOT, "Ebs": {**ebs, "Encrypted": False}}])
    backend.amis[image.id] = image
    return str(image.id)
