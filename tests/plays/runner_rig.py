# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet playbook under `ansible-runner`, which is what AWX starts: its folders, its artefacts and its processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from .fleet_rig import PATIENCE, PLAYBOOK, Fleet, environment

ANSIBLE_RUNNER = Path(sys.executable).with_name("ansible-runner")
IDENT = "1"


class RunnerRun:
    """`ansible-runner run`. It has a process group, `ansible-playbook` another, and so has each of its workers."""

    def __init__(
        self, fleet: Fleet, name: str, inventory: Path, injected: Mapping[str, str], verbosity: int, **variables: Any
    ) -> None:
        """`name`: of the private data directory; `injected`: the environment that a credential gives to a job."""
        self.folder = fleet.folder / name
        variables = {"export_fleet_hosts": "vms", "vm_export_progress_interval": "1s", **variables}
        for file, content in (("envvars", dict(injected)), ("extravars", variables)):
            path = self.folder / "env" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        inherited = environment(fleet.folder)
        options = ["-p", PLAYBOOK, "--inventory", str(inventory), "--ident", IDENT, "--forks", "5"]
        self._output = (self.folder / "output").open("w")
        self._killed: list[int] = []
        self.process = subprocess.Popen(
            [str(ANSIBLE_RUNNER), "run", str(self.folder), *options, *["-v"] * verbosity],
            env={**inherited, "PATH": f"{ANSIBLE_RUNNER.parent}{os.pathsep}{inherited['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=fleet.folder,
            start_new_session=True,
        )

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts" / IDENT

    def wait(self) -> str:
        """Its status."""
        self.process.wait(PATIENCE)
        return (self.artifacts / "status").read_text()

    def cancel(self) -> str:
        """As AWX does, by what `ansible-runner` has for it: it kills the process group of `ansible-playbook`."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill_alone(self) -> None:
        """With its process group, of which there is nobody else."""
        self._killed = self.descendants()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_all(self) -> None:
        """With all that came of it, as the end of its container does."""
        for pid in (self.process.pid, *self.descendants()):
            _kill(pid)
        self.process.wait()

    def end(self) -> None:
        """A test that fails leaves nothing running."""
        if self.process.poll() is None:
            self.kill_all()
        for pid in filter(self.has, self._killed):
            _kill(pid)
        self._output.close()

    def descendants(self) -> list[int]:
        """`ansible-playbook` first. Jobs are not among them, they are nobody's."""
        return _descendants(self.process.pid)

    def has(self, pid: int) -> bool:
        """Whether this process, once one of the run's, is still there."""
        try:
            return str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """In their order; not to be asked for before the end."""
        found = [json.loads(path.read_text()) for path in (self.artifacts / "job_events").glob("*-*.json")]
        return sorted((event for event in found if "counter" in event), key=lambda event: int(event["counter"]))

    def lines(self, host: str) -> list[str]:
        """What the jobs of a host printed, as the events tell it."""
        verbose = [event["stdout"] for event in self.events if event["event"] == "verbose"]
        return [line for text in verbose for line in text.splitlines() if line.startswith((f"[{host}]", f"[{host}: "))]

    def stats(self, name: str) -> set[str]:
        """The hosts that are counted among `failures`, `dark`, `changed` and so on."""
        (last,) = [event["event_data"] for event in self.events if event["event"] == "playbook_on_stats"]
        return set(last[name])


class Runners:
    """All runs of one test."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._runs = fleet, list[RunnerRun]()

    def start(
        self,
        hosts: Sequence[str] = (),
        injected: Mapping[str, str] | None = None,
        verbosity: int = 0,
        **variables: Any,
    ) -> RunnerRun:
        """On these hosts of the fleet, or on all."""
        name = f"runner{len(self._runs)}"
        inventory = self._fleet.inventory(f"inventory_of_{name}", hosts)
        self._runs.append(RunnerRun(self._fleet, name, inventory, injected or {}, verbosity, **variables))
        return self._runs[-1]

    def end(self) -> None:
        for run in self._runs:
            run.end()


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [one for child in map(int, children) for one in (child, *_descendants(child))]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
