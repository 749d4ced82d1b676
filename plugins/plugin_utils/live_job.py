# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One module that runs as a job on its host while its task waits: start, watch, end."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import job_id as job_id_value
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import SILENCE
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import WATCHER

from . import poll_command
from .alarm import NoAnswer, at_most
from .job_result import died, enriched, lost, never_started, of_module
from .poll_command import Answer, JobPlace
from .progress_lines import ProgressLines, clock_time
from .watch_options import WatchOptions

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase

DETACHED = 10 * 365 * 86400  # seconds after which async_wrapper kills; the job's own max_duration ends it properly
ABANDON_SECONDS = 3.0
SHORTEST_CALL = 10.0  # seconds that a poll may take, at least: a new SSH connection may need them
LONGEST_CALL = 30.0
START_PATIENCE = 120.0  # seconds without a record or a result
STILL = 60.0  # seconds in which a record that can be read does not change: then that is told
RESULT_PATIENCE = 15.0  # seconds from a finished record, or from the end of the process, to the module's result


class PlaybookGone(AnsibleError):
    """`ansible-playbook` was killed, and its worker, which is this process, was not. Nobody sees the message."""


class LiveJob:
    """Uses the action's connection, become and shell; one command for each poll."""

    def __init__(
        self,
        action: ActionBase,
        arguments: Mapping[str, Any],
        environment: Mapping[str, Any],
        task_vars: dict[str, Any],
        options: WatchOptions,
    ) -> None:
        job_id = job_id_of(arguments) or secrets.token_hex(16)
        self._action, self._task_vars, self._options = action, task_vars, options
        self._arguments = {**arguments, "job_id": job_id, "controller_timeout": options.controller_timeout}
        variables = {name: str(value) for name, value in environment.items()}
        self._place = JobPlace(job_id, str(arguments.get("state_dir") or ""), variables, secrets.token_hex(16))
        host = str(task_vars.get("inventory_hostname", ""))
        self._lines = ProgressLines(host, options.line_interval, self._show, time.monotonic)
        self._results_file = self._payload_dir = self._payload = ""  # the payload holds secrets, its folder none
        self._answer: Answer | None = None  # the last one, of this job
        self._heard_at = self._changed_at = time.monotonic()
        self._silent = self._still = False
        self._playbook = os.getppid()

    def run(self) -> dict[str, Any]:
        """The module's result. Whatever ends the task before the job makes the job stop, too."""
        try:
            started = self._start()
            if not started.get("ansible_job_id"):
                return started
            return {**self._watch(), **_kept(started)}
        except BaseException as error:
            if self._results_file or not isinstance(error, Exception):
                self._abandon(poll_command.reason(error))
            raise

    def _start(self) -> dict[str, Any]:
        action = self._action
        shell = action._connection._shell
        if shell.tmpdir is None:
            action._make_tmp_path()
        folder = shell.tmpdir
        may_remove = action._should_remove_tmp_path(folder)
        # Where one ordinary user becomes another, the first one made it, and the other may only read it.
        self._tmp_is_of_become_user = not action._is_become_unprivileged()
        with self._detached(action._task):
            started: dict[str, Any] = action._execute_module(
                module_args=self._arguments, task_vars=self._task_vars, wrap_async=True
            )
        if not started.get("ansible_job_id"):
            if may_remove:  # core leaves that to the wrapper, which did not start
                action._remove_tmp_path(folder, force=True)
            return {**started, "failed": True, "changed": False}
        self._results_file = str(started["results_file"])
        self._payload_dir = self._payload = folder if may_remove else ""
        self._heard_at = self._changed_at = time.monotonic()
        return started

    @contextlib.contextmanager
    def _detached(self, task: Any) -> Iterator[None]:
        """The task as the module is to be started: it ends when it likes, and knows whom it belongs to."""
        own = task.environment
        given = own if isinstance(own, list) else [own]
        task.async_val, task.environment = DETACHED, [*given, {WATCHER: self._place.watcher}]
        try:
            yield
        finally:
            task.async_val, task.environment = 0, own

    def _watch(self) -> dict[str, Any]:
        for pause in self._options.pauses():
            time.sleep(pause)
            if os.getppid() != self._playbook:
                raise PlaybookGone
            if not self._poll():
                if time.monotonic() - self._heard_at > self._options.silence:
                    return lost(self._place.job_id, self._options, self._answer)
                continue
            if (ended := self._ended()) is not None:
                self._clean_up()
                return ended
        raise AssertionError("pauses() has no end")

    def _poll(self) -> bool:
        """Whether the host answered."""
        pid = self._answer.pid if self._answer is not None else None
        seconds = min(LONGEST_CALL, max(SHORTEST_CALL, self._options.silence / 2))
        answered, why = self._low_level(poll_command.poll(self._place, self._results_file, pid), seconds)
        if answered is None:
            self._fell_silent(why)
            return False
        try:
            answer = poll_command.parse(answered)
        except (ValueError, KeyError):
            self._fell_silent("its answer was cut off")
            return False
        self._note(answer)
        return True

    def _note(self, answer: Answer) -> None:
        now = time.monotonic()
        self._heard_at = now
        if self._silent:
            self._silent = False
            self._lines.say("the host answers again")
        if self._answer is None or (answer.record, answer.alive) != (self._answer.record, self._answer.alive):
            self._changed_at, self._still = now, False
        self._answer = answer
        if answer.record is not None:
            self._remove_payload()
            self._lines.update(answer.record)

    def _remove_payload(self) -> None:
        """Its secrets must not outlast a host that goes down, or a process that is killed."""
        if self._payload:
            removed, _why = self._low_level(
                poll_command.remove_payload(self._payload), SHORTEST_CALL, sudoable=self._tmp_is_of_become_user
            )
            if removed is not None:
                self._payload = ""

    def _clean_up(self) -> None:
        paths = [path for path in (self._results_file, self._payload_dir) if path]
        if not self._tmp_is_of_become_user and self._payload_dir:
            self._low_level(poll_command.remove(paths.pop()), SHORTEST_CALL, sudoable=False)
        self._low_level(poll_command.remove(*paths), SHORTEST_CALL)

    def _ended(self) -> dict[str, Any] | None:
        answer = self._answer
        if answer is None:
            return None
        if answer.result is not None:
            result = of_module(self._action, answer.result, answer.record)
            return enriched(result, self._place.job_id, answer) if "job" in result else result
        unchanged = time.monotonic() - self._changed_at
        if answer.record is None:
            return self._given_up(never_started(START_PATIENCE)) if unchanged > START_PATIENCE else None
        ending = answer.record.get("finished") or answer.alive is False
        if ending:
            return enriched(died(answer.record), self._place.job_id, answer) if unchanged > RESULT_PATIENCE else None
        if answer.alive is None and unchanged > SILENCE:
            return self._given_up(enriched(died(answer.record), self._place.job_id, answer))
        if unchanged > STILL:
            self._stands_still(answer.alive)
        return None

    def _given_up(self, result: dict[str, Any]) -> dict[str, Any]:
        """It may live: then it must not go on without anybody."""
        self._abandon(poll_command.GAVE_UP)
        return result

    def _stands_still(self, alive: bool | None) -> None:
        if not self._still:
            self._still = True
            process = "its process lives, and is waited for" if alive else "its process cannot be seen from here"
            self._lines.say(f"nothing new in its record for {clock_time(STILL)}; {process}")

    def _fell_silent(self, why: str) -> None:
        if not self._silent:
            self._silent = True
            patience = clock_time(self._options.silence)
            self._lines.say(f"no answer from the host ({why}); the job goes on, and is asked again for {patience}")
        with contextlib.suppress(AnsibleError, AttributeError, OSError, NoAnswer), at_most(SHORTEST_CALL):
            self._action._connection.reset()

    def _low_level(self, command: str, seconds: float, *, sudoable: bool = True) -> tuple[str | None, str]:
        """Standard output, or None and why there is none."""
        try:
            with at_most(seconds):
                done = self._action._low_level_execute_command(command, sudoable=sudoable)
        except NoAnswer:
            return None, f"nothing came for {seconds:.0f} s"
        except (AnsibleError, OSError) as error:
            return None, str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
        if done["rc"] != 0:
            return None, f"a command ended with {done['rc']}"
        return done["stdout"], ""

    def _abandon(self, reason: str) -> None:
        with contextlib.suppress(Exception):  # unseen, the job stops itself when its lease is over
            self._low_level(poll_command.abandon(self._place, reason), ABANDON_SECONDS)

    def _show(self, line: str) -> None:
        if self._options.prints and not self._action._task.no_log:
            Display().display(line)


def job_id_of(arguments: Mapping[str, Any]) -> str:
    """'' if the task names none. Raises `invalid_config` as the module would, before it becomes part of a path."""
    given = arguments.get("job_id")
    return job_id_value("job_id", None if given is None else str(given))


def _kept(started: Mapping[str, Any]) -> dict[str, Any]:
    """What core found out about the host on the way, such as its Python."""
    return {name: started[name] for name in ("ansible_facts",) if name in started}
