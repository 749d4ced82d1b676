# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays as users run them: `ansible-playbook` as a process of its own, with a home and a remote tmp of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import is_alive
from rigs.libvirt import LibvirtRig

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE_PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
EXPORT = "vmferry.migrate.vm_export"
SLOW = "4MiB/s"  # with 20 MiB of data, some five seconds
PATIENCE = 180.0  # seconds; a busy machine takes three times as long as a quiet one


@contextmanager
def held(record: Mapping[str, Any]) -> Iterator[None]:
    """The job of this record does nothing until the block ends, however slow the plays are that look at it."""
    os.kill(record["owner"]["pid"], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(record["owner"]["pid"], signal.SIGCONT)


@dataclass(frozen=True)
class Stage:
    """One test's folders, and the hypervisor."""

    rig: LibvirtRig
    folder: Path
    vm: str  # the first of `vms`, which are alike
    vms: tuple[str, ...]
    plays: list[Play] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def remote_tmp(self) -> Path:
        return self.folder / "remote_tmp"

    @property
    def async_dir(self) -> Path:
        return self.folder / "async"

    def options(self, **options: Any) -> dict[str, Any]:
        """Of an export to the test's folder; None leaves an option out."""
        whole = {
            "libvirt": {"uri": self.rig.uri, "scratch_dir": str(self.folder / "scratch")},
            "vm": self.vm,
            "url": f"file://{self.store}",
            "state_dir": str(self.state),
            "progress_interval": "1s",
            **options,
        }
        return {name: value for name, value in whole.items() if value is not None}

    def export(self, keywords: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """A task."""
        return {EXPORT: self.options(**options), "register": "done", **(keywords or {})}

    def records(self) -> list[dict[str, Any]]:
        found = [json.loads(path.read_text()) for path in self.state.glob("jobs/*/record.json")]
        return sorted(found, key=lambda record: record["started"])

    def record(self) -> dict[str, Any]:
        (only,) = self.records()
        return only

    def stored(self) -> list[str]:
        return sorted(str(path.relative_to(self.store)) for path in self.store.rglob("*") if path.is_file())

    def left_for_ansible(self) -> list[Path]:
        """What lies in the remote tmp and in the async dir."""
        return [path for folder in (self.remote_tmp, self.async_dir) for path in folder.rglob("*") if path.is_file()]

    def play(
        self,
        *tasks: Mapping[str, Any],
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        playbook: Path | None = None,
        **play: Any,
    ) -> Play:
        """Started, and not waited for. `hosts`: names and their variables; one local host if left out."""
        whole = [{"hosts": "all", "gather_facts": False, **play, "tasks": list(tasks)}]
        if playbook is not None:
            whole = [{"import_playbook": str(playbook)}]
        self.plays.append(Play(self, whole, hosts or {"kvm1": {}}, arguments, environment or {}))
        return self.plays[-1]

    def end(self) -> None:
        """A test that fails leaves no play and no job running."""
        for play in self.plays:
            play.end()
        for folder in self.state.glob("jobs/*"):
            (folder / "cancel").touch()
        self.wait_for(
            lambda: all(one["finished"] or not is_alive(one) for one in self.records()), "the end of all jobs"
        )

    def wait_for(self, found: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        deadline = time.monotonic() + patience
        while not (value := found()):
            assert time.monotonic() < deadline, f"{what}: not within {patience:.0f} s"
            time.sleep(0.05)
        return value

    def wait_for_bytes(self) -> dict[str, Any]:
        """The record of a job, once some of the disk went out."""

        def moving() -> list[dict[str, Any]]:
            return [one for one in self.records() if one["phase"] == "exporting" and one.get("bytes_read")]

        found: dict[str, Any] = self.wait_for(moving, "bytes")[-1]
        return found

    def wait_for_end(self, patience: float = PATIENCE) -> dict[str, Any]:
        """The only job's record, once it is finished."""
        found: dict[str, Any] = self.wait_for(
            lambda: [one for one in self.records() if one["finished"]], "the end of the job", patience
        )[0]
        return found


class Play:
    """One run of `ansible-playbook`, in a process group of its own."""

    def __init__(
        self,
        stage: Stage,
        plays: Sequence[Mapping[str, Any]],
        hosts: Mapping[str, Mapping[str, Any]],
        arguments: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        number = len(stage.plays)
        playbook, inventory = stage.folder / f"play{number}.yml", stage.folder / f"hosts{number}.yml"
        playbook.write_text(yaml.safe_dump(list(plays), sort_keys=False))
        here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory.write_text(yaml.safe_dump({"all": {"hosts": {name: {**here, **own} for name, own in hosts.items()}}}))
        self.stage, self.output = stage, ""
        self._output = stage.folder / f"output{number}"
        self._log = self._output.open("w")
        self.process = subprocess.Popen(
            [str(ANSIBLE_PLAYBOOK), "-v", "-i", str(inventory), *arguments, str(playbook)],
            env={**os.environ, **self._environment(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=stage.folder,
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        stage = self.stage
        return {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
            "ANSIBLE_HOME": str(stage.folder / "ansible"),
            "ANSIBLE_REMOTE_TMP": str(stage.remote_tmp),
            "ANSIBLE_ASYNC_DIR": str(stage.async_dir),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
        }

    def so_far(self) -> str:
        return self._output.read_text()

    def wait(self, code: int = 0, patience: float = PATIENCE) -> Play:
        """Until it ends, with this exit code."""
        try:
            ended = self.process.wait(patience)
        finally:
            self.output = self.so_far()
        assert ended == code, f"ended with {ended}:\n{self.output}"
        return self

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self._log.close()

    def lines(self, start: str = "[") -> list[str]:
        """What jobs printed."""
        own = (line for line in self.output.splitlines() if line.startswith(start))
        return [line for line in own if not line.startswith(("[WARNING", "[ERROR", "[DEPRECATION"))]

    def results(self) -> list[dict[str, Any]]:
        """Of all tasks and hosts, in the order of the output."""
        found, decoder, at = [], json.JSONDecoder(), 0
        while (at := self.output.find("=> {", at)) >= 0:
            value, length = decoder.raw_decode(self.output[at + 3 :])
            found.append(value)
            at += 3 + length
        return found

    def result(self) -> dict[str, Any]:
        return self.results()[-1]
