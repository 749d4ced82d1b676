# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shell commands of a watched job, and what they answer.

A poll is one command: it renews the lease, and prints whether the job's process is there, the module's result, once
there is one, and the job's record. It runs as the user and with the environment of the module, so both come to the same
state directory.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import is_process_alive, started_of

# What the state directory depends on; nothing else of a task's environment goes onto a command line.
ENVIRONMENT = ("VMFERRY_STATE_DIR", "XDG_STATE_HOME", "HOME")
START_SECONDS = 60  # that a module may need until its job has a record
_MARK = "--vmferry--"
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)  # as os.path.expandvars finds them
_USER = re.compile(r"~[A-Za-z_][\w.-]*", re.ASCII)
# As default_state_dir() of module_utils/_transfer/record.py.
_DEFAULT_STATE_DIR = (
    "state=${VMFERRY_STATE_DIR:-}",
    'if [ -z "$state" ] && [ "$(id -u)" = 0 ]; then state=/var/lib/vmferry; fi',
    "case ${XDG_STATE_HOME:-} in /*) ;; *) XDG_STATE_HOME=${HOME:-$(cd ~ && pwd)}/.local/state;; esac",
    "state=${state:-$XDG_STATE_HOME/vmferry}",
)


@dataclass(frozen=True)
class JobPlace:
    """Where a job's folder is on the host that runs it. `state_dir` as the task has it, '' for the default.

    There may be another job of that id, which has ended or not: this job's record has `watcher`, a word, in it.
    """

    job_id: str
    state_dir: str
    environment: Mapping[str, str]
    watcher: str

    @property
    def is_own(self) -> str:
        """A shell command that succeeds once the record of this job is there."""
        return f'grep -qsF {shlex.quote(self.watcher)} "$job"/record.json'

    def statements(self) -> list[str]:
        """Shell statements that set `job`."""
        chosen = self.state_dir or self.environment.get("VMFERRY_STATE_DIR", "")
        given = [f"{name}={shlex.quote(self.environment[name])}" for name in ENVIRONMENT if name in self.environment]
        state = [f"state={expanded(chosen)}"] if chosen else _DEFAULT_STATE_DIR
        return ["umask 077", *given, *state, f'job="$state"/jobs/{shlex.quote(self.job_id)}']


@dataclass(frozen=True)
class Answer:
    """`folder`: the job's; `result`: the module's, unparsed, None until it ends; `record`: None before there is one.

    `alive`: whether its process was there before the record was read; None where that could not be seen.
    """

    folder: str
    result: str | None
    record: dict[str, Any] | None
    alive: bool | None = None

    @property
    def pid(self) -> int | None:
        pid = ((self.record or {}).get("owner") or {}).get("pid")
        return pid if isinstance(pid, int) else None


def poll(place: JobPlace, results_file: str, pid: int | None = None) -> str:
    """`pid`: of the job's process, once its record has told."""
    return _joined(
        *place.statements(),
        f'echo; echo {_MARK}folder; printf "%s\\n" "$job"',
        # The process before everything that it may write: of one that is gone there is nothing to come.
        f"echo {_MARK}process; {_seen_there(pid)}",
        # The result first: once it is there, the record that follows is the last one.
        f"echo {_MARK}result; cat {shlex.quote(results_file)} 2>/dev/null; echo",
        f"echo {_MARK}record",
        f'if {place.is_own}; then touch "$job"/lease; cat "$job"/record.json; echo; fi',
        f"echo {_MARK}end",
    )


def _seen_there(pid: int | None) -> str:
    """A line each for what module_utils/_transfer/owner.py compares; empty where this system does not tell."""
    if pid is None:
        return ":"
    files = ("cat /proc/sys/kernel/random/boot_id", "readlink /proc/self/ns/pid", f"cat /proc/{pid}/stat")
    return 'printf "%s\\n" "$(uname -n)" ' + " ".join(f'"$({command} 2>/dev/null)"' for command in files)


def abandon(place: JobPlace, reason: str) -> str:
    """Has the job stop, and returns at once; one that is just starting is waited for behind its back. Who asked before
    stays the one."""
    write = f'(set -C; printf "%s\\n" {shlex.quote(reason)} >"$job"/abandon) 2>/dev/null || :'
    wait = f"n=0; until {place.is_own} || [ $n -ge {START_SECONDS} ]; do sleep 1; n=$((n+1)); done"
    wait_and_write = f"{wait}; if {place.is_own}; then {write}; fi"
    return _joined(
        *place.statements(),
        f'if {place.is_own}; then {write}; else (trap "" HUP; {wait_and_write}) </dev/null >/dev/null 2>&1 & fi',
    )


def remove_payload(folder: str) -> str:
    """The module with its arguments, which Python has read whole by the time the job has a record."""
    return f"rm -f {shlex.quote(folder)}/AnsiballZ_*"


def remove(*paths: str) -> str:
    """Once the module ended. Core's wrapper would remove its folder itself, up to five seconds later."""
    return f"rm -rf {' '.join(map(shlex.quote, paths))}"


def parse(output: str) -> Answer:
    """Raises ValueError for output that is not a whole answer."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []  # what a login prints before
    for line in output.splitlines():
        if line.startswith(_MARK):
            current = sections.setdefault(line.removeprefix(_MARK).strip(), [])
        else:
            current.append(line)
    if "end" not in sections:
        raise ValueError("the answer has no end")
    text = {name: "\n".join(lines).strip() for name, lines in sections.items()}
    record = json.loads(text["record"]) if text["record"] else None
    return Answer(text["folder"], _finished(text["result"]), record, _alive(record, sections["process"]))


def _alive(record: dict[str, Any] | None, seen: list[str]) -> bool | None:
    lines = [line.strip() for line in seen]
    if record is None or len(lines) < len(("hostname", "boot_id", "pid_namespace", "stat")):
        return None
    stat = " ".join(lines[3:])
    namespace = re.search(r"\d+", lines[2])
    here = {"hostname": lines[0], "boot_id": lines[1], "pid_namespace": int(namespace[0]) if namespace else None}
    return is_process_alive(record.get("owner") or {}, here, started_of(stat) if stat else None)


def _finished(text: str) -> str | None:
    """As core's async_status tells: what async_wrapper writes first has `started`, a module's result has not."""
    if not text:
        return None
    found = json.loads(text)
    return None if isinstance(found, dict) and "started" in found else text


def expanded(path: str) -> str:
    """A shell word for a path, with its variables and home expanded by the host, as an option of type `path` is."""
    home, rest = "", path
    if path == "~" or path.startswith("~/"):
        home, rest = '"$HOME"', path[1:]
    elif (user := _USER.match(path)) and path[user.end() : user.end() + 1] in ("", "/"):
        home, rest = user[0], path[user.end() :]
    parts, at = [home], 0
    for found in _VARIABLE.finditer(rest):
        name = found[1].strip("{}")
        parts.append(shlex.quote(rest[at : found.start()]) if found.start() > at else "")
        known = re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)
        as_it_stands = found[0].replace("$", "\\$").replace("}", "\\}")
        parts.append(f'"${{{name}-{as_it_stands}}}"' if known else shlex.quote(found[0]))
        at = found.end()
    parts.append(shlex.quote(rest[at:]) if rest[at:] else "")
    return "".join(parts)


def _joined(*statements: str) -> str:
    return "; ".join(statements)


GAVE_UP = "a task that waited for a sign of life in vain"


def reason(error: BaseException) -> str:
    """Who wants the job stopped, for the record."""
    if isinstance(error, KeyboardInterrupt):
        return "an interrupt of ansible-playbook"
    if type(error).__name__ == "PlaybookGone":
        return "the end of ansible-playbook"
    if "Timeout" in type(error).__name__:
        return "ansible-playbook's task timeout"
    return f"a failure of ansible-playbook ({type(error).__name__})"
