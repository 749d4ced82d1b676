# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports and imports as tests ask for them: by the operations, or by a module's own process."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ImportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from rigs.libvirt import LibvirtRig

from .leftovers import backup_under_way, left_in_folder, left_in_store, left_on_machine, left_processes

ROOT = Path(__file__).resolve().parents[2]
MODULES = "ansible_collections.vmferry.migrate.plugins.modules"
MIB = 1 << 20
SLOW = "4MiB/s"  # of an export that has to last until a test has done something to it
PATIENCE = 90.0  # seconds; a busy machine takes three times as long as a quiet one
Result = TypeVar("Result")


@dataclass(frozen=True)
class Bench:
    """One test's folders and store, and the rig's machines."""

    rig: LibvirtRig
    folder: Path
    store: StoreSpec
    keys: Callable[[], list[str]]  # what the store holds, below its URL
    read: Callable[[str], bytes]
    uploads: Callable[[], list[str]] = field(default=lambda: [])
    download: Callable[[str, Path], None] = field(default=lambda key, target: None)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def provider(self) -> ProviderSpec:
        return ProviderSpec("libvirt", {"uri": self.rig.uri, "scratch_dir": str(self.scratch)})

    def transfer(self, **options: Any) -> TransferOptions:
        return TransferOptions(**{"state_dir": str(self.state), "max_retries": 3, "idle_timeout": 60.0, **options})

    def export_request(self, vm: str, transfer: Mapping[str, Any] | None = None, **options: Any) -> ExportRequest:
        asked = {"provider": self.provider, "store": self.store, **options}
        return ExportRequest(vm=vm, transfer=self.transfer(**(transfer or {})), **asked)

    def export(self, vm: str, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        """`options` of the request; `transfer` is a dict of the transfer's own."""
        return export_vm(self.export_request(vm, **options), check_mode)

    def import_(
        self,
        name: str,
        *,
        check_mode: bool = False,
        transfer: Mapping[str, Any] | None = None,
        placement: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        placed = Placement(name, **{"storage": str(self.images), **(placement or {})})
        asked = {"provider": self.provider, "store": self.store, **options}
        return import_vm(
            ImportRequest(placement=placed, transfer=self.transfer(**(transfer or {})), **asked),
            check_mode,
        )

    def verify(
        self, *, check_mode: bool = False, transfer: Mapping[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        asked = {"provider": self.provider, "store": self.store, "storage": str(self.images), **options}
        return verify_export(VerifyRequest(transfer=self.transfer(**(transfer or {})), **asked), check_mode)

    def refused_export(self, vm: str, kind: str, words: str, **options: Any) -> VmferryError:
        return refused(lambda: self.export(vm, **options), kind, words)

    def refused_import(self, name: str, kind: str, words: str, **options: Any) -> VmferryError:
        return refused(lambda: self.import_(name, **options), kind, words)

    def jobs(self, *, job: str = "", vm: str = "", state: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = list_jobs(str(self.state), job, vm, state, 50)["jobs"]
        return found

    def assert_nothing_left(self, vm: str = "", *, runs: bool = True) -> None:
        """Of a run on `vm`: committed exports and finished job records are all that may stay."""
        found = left_processes()
        if vm:
            found += left_on_machine(self.rig.connect().lookupByName(vm), runs, self.tokens())
        found += left_in_folder(self.scratch)
        found += left_in_store(self.keys(), self.uploads())
        found += [f"{path} is there" for path in self.state.rglob("*.part")]
        found += [f"the job {job['id']} is {job['phase']}" for job in self.jobs() if not job["finished"]]
        assert not found, "\n".join(found)

    def tokens(self) -> set[str]:
        """Of committed exports: only these may the provider still know."""
        manifests = [json.loads(self.read(key)) for key in self.keys() if key.endswith("/manifest.json")]
        return {manifest["x_vmferry"]["change_token"] for manifest in manifests}

    def assert_no_machine(self, name: str) -> None:
        """Of an import that failed: no VM of that name, no disk, no firmware variables."""
        assert name not in {domain.name() for domain in self.rig.connect().listAllDomains()}
        assert not list(left_in_folder(self.images))

    def stored(self, result: Mapping[str, Any], disk: int = 0) -> Path:
        """The path of an exported disk in a file store."""
        return Path(result["export"]["disks"][disk]["url"].removeprefix("file://"))

    @contextmanager
    def running_module(self, module: str, arguments: Mapping[str, Any]) -> Iterator[ModuleProcess]:
        process = ModuleProcess(self, module, arguments)
        try:
            yield process
        finally:
            process.end()

    def module_arguments(self, **options: Any) -> dict[str, Any]:
        return {
            "provider": "libvirt",
            "libvirt": {"uri": self.rig.uri, "scratch_dir": str(self.scratch)},
            "url": self.store.url,
            "storage": dict(self.store.settings),
            "state_dir": str(self.state),
            **options,
        }


def refused(action: Callable[[], object], kind: str, words: str) -> VmferryError:
    """One clear sentence with its kind; says that much for every error a user meets here."""
    with pytest.raises(VmferryError) as caught:
        action()
    error = caught.value
    assert error.kind == kind, f"{error.kind}: {error}"
    assert words in str(error), str(error)
    assert "\n" not in str(error)
    assert "Traceback" not in str(error)
    return error


class ModuleProcess:
    """A module's own process, as Ansible starts it on a host: arguments in a file, the result on standard output."""

    def __init__(self, bench: Bench, module: str, arguments: Mapping[str, Any]) -> None:
        self._bench = bench
        self.job = secrets.token_hex(16)
        self._folder = tempfile.TemporaryDirectory(prefix="vmferry-module-")
        asked = {**arguments, "job_id": self.job, "_ansible_remote_tmp": self._folder.name}
        script = Path(self._folder.name) / "arguments.json"
        script.touch(mode=0o600)
        script.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": asked}))
        environment = {**os.environ, **bench.rig.environment, "PYTHONPATH": str(ROOT / ".build")}
        # What runs the tests in the background may have had these ignored, and a child would go on ignoring them.
        heard = ["env", "--default-signal=INT,HUP"]
        self.process = subprocess.Popen(
            [*heard, sys.executable, "-m", f"{MODULES}.{module}", str(script)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    def wait_for_phase(self, phase: str) -> dict[str, Any]:
        return self._wait(lambda record: record["phase"] == phase, phase)

    def wait_for_bytes(self) -> dict[str, Any]:
        """Until the record says that some of the disk went out."""
        return self._wait(lambda record: record["phase"] == "exporting" and record.get("bytes_read", 0) > 0, "bytes")

    def wait_for_note(self) -> str:
        return str(self._wait(lambda record: bool(record.get("note")), "note")["note"])

    def _wait(self, fits: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            record = self._bench.state / "jobs" / self.job / "record.json"
            if record.exists() and fits(found := json.loads(record.read_text())):
                return found
            if self.process.poll() is not None:
                raise AssertionError(f"it ended before {what}: {self.process.communicate()}")
            time.sleep(0.05)
        raise AssertionError(f"no {what} within {PATIENCE} s")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def result(self, timeout: float = 60.0) -> dict[str, Any]:
        self.output, self.errors = self.process.communicate(timeout=timeout)
        answer: dict[str, Any] = json.loads(self.output)
        return answer

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._folder.cleanup()


@contextmanager
def meanwhile(action: Callable[[], Result]) -> Iterator[Callable[[], Result]]:
    """Does `action` beside the body, which has the main thread, as an export must: signals only reach that.

    What is yielded waits for the action's result, or raises what it raised.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001  # raised again in the test
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def outcome() -> Result:
        thread.join(PATIENCE * 2)
        if errors:
            raise errors[0]
        return results[0]

    try:
        yield outcome
    finally:
        thread.join(PATIENCE * 2)


def wait_until_read(bench: Bench) -> None:
    """Until an export of this process, the only one at work, has read some of its disk."""
    deadline = time.monotonic() + PATIENCE
    while not any(
        record["phase"] == "exporting" and record.get("bytes_read", 0) > 0
        for record in (json.loads(path.read_text()) for path in bench.state.glob("jobs/*/record.json"))
    ):
        assert time.monotonic() < deadline, "nothing is read"
        time.sleep(0.05)


def wait_for_backup(bench: Bench, vm: str) -> str:
    """The XML of the backup job, once there is one."""
    deadline = time.monotonic() + PATIENCE
    while not (found := backup_under_way(bench.rig.connect().lookupByName(vm))):
        assert time.monotonic() < deadline, "no backup job appears"
        time.sleep(0.02)
    return found


def compare(left: Path | str, left_format: str, right: Path | str, right_format: str) -> None:
    """Judged by qemu-img: the same guest data, and a sound image."""
    done = subprocess.run(
        ["qemu-img", "compare", "-U", "-f", left_format, "-F", right_format, str(left), str(right)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def check(image: Path) -> None:
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(image)], check=True)


def convert(source: Path | str, source_format: str, target: Path, target_format: str = "raw") -> Path:
    command = ["qemu-img", "convert", "-U", "-f", source_format, "-O", target_format, str(source), str(target)]
    subprocess.run(command, check=True)
    return target
