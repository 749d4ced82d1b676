# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: transfers
type: aggregate
short_description: One table of all exports, imports and migrations, metrics for Prometheus, an audit log
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Prints a table of what M(vmferry.migrate.vm_export), M(vmferry.migrate.vm_import) and M(vmferry.migrate.vm_migrate)
    did on all hosts of a run, with the reason and a hint where a transfer failed.
  - If told to, keeps metrics of the last transfer of each VM in a file for the textfile collector of node_exporter, and
    adds a line for each transfer to an audit log.
  - A VM that the preflight of the playbook C(vmferry.migrate.export_fleet) leaves out is told as an export that failed.
  - Reads only what the tasks return, never their arguments. Of a task with C(no_log), only the host and the outcome are
    told.
  - A file that cannot be written gives a warning. It does not make the play fail.
requirements:
  - enabled by C(callbacks_enabled = vmferry.migrate.transfers) in C(ansible.cfg), or by
    C(ANSIBLE_CALLBACKS_ENABLED=vmferry.migrate.transfers)
notes:
  - In check mode nothing is transferred. Such tasks are in the audit log, as C(checked), or as C(failed) where they
    found an error, and nowhere else.
  - A transfer that was started with C(poll=0) is told when M(ansible.builtin.async_status) finds it finished, in the
    same run; otherwise as C(started).
options:
  table:
    description:
      - Print the table at the end of the run, if anything was to be transferred.
    type: bool
    default: true
    ini:
      - section: callback_vmferry_transfers
        key: table
    env:
      - name: VMFERRY_TRANSFERS_TABLE
  metrics_file:
    description:
      - Write metrics to this file at the end of the run, in the text format of Prometheus. Its name has to end in
        C(.prom) for the textfile collector of node_exporter to read it.
      - The file is replaced at once, and can be read by everyone (mode 0644), as node_exporter runs as a user of its
        own. The folder must exist.
      - What earlier runs wrote about other VMs stays, and so does the time of the last success of a VM whose transfer
        failed. To forget a VM, remove its lines.
      - If not given, none are written.
    type: path
    ini:
      - section: callback_vmferry_transfers
        key: metrics_file
    env:
      - name: VMFERRY_TRANSFERS_METRICS_FILE
  audit_log:
    description:
      - Add one line to this file for each transfer as soon as its result is there, a JSON object each.
      - The file is made with mode 0600. The mode of a file that exists is left as it is. A symbolic link is refused.
        The folder must exist.
      - If not given, none is written.
    type: path
    ini:
      - section: callback_vmferry_transfers
        key: audit_log
    env:
      - name: VMFERRY_TRANSFERS_AUDIT_LOG
seealso:
  - module: vmferry.migrate.vm_export
  - module: vmferry.migrate.vm_import
  - module: vmferry.migrate.vm_migrate
"""

EXAMPLES = r"""
examples: |
  # In ansible.cfg; without the second section there is the table, and nothing else.
  [defaults]
  callbacks_enabled = vmferry.migrate.transfers

  [callback_vmferry_transfers]
  metrics_file = /var/lib/node_exporter/textfile/vmferry.prom
  audit_log = /var/log/vmferry-audit.jsonl

  # The table for one run, on a command line.
  ANSIBLE_CALLBACKS_ENABLED=vmferry.migrate.transfers ansible-playbook nightly.yml
"""

import os
import pwd
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible import constants as C
from ansible.plugins.callback import CallbackBase

from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_report import Outcome, Transfer, transfer_of
from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_report_audit import (
    AuditLog,
    Circumstances,
    audit_entry,
)
from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_report_fleet import left_out
from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_report_metrics import NotOurs, write_metrics
from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_report_table import summary_line, table_lines

if TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.playbook import Playbook
    from ansible.playbook.play import Play

KINDS = {"vm_export": "export", "vm_import": "import", "vm_migrate": "migrate"}
COLLECTION = "vmferry.migrate"
COLORS: dict[Outcome | None, str] = {  # names of settings
    "ready": "COLOR_CHANGED",
    "unchanged": "COLOR_OK",
    "failed": "COLOR_ERROR",
    "cancelled": "COLOR_ERROR",
    "unreachable": "COLOR_UNREACHABLE",
}


@dataclass(frozen=True)
class StartedJob:
    """A transfer that its task did not wait for."""

    host: str
    kind: str
    circumstances: Circumstances


class CallbackModule(CallbackBase):
    """Core calls it for one result at a time."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "vmferry.migrate.transfers"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._playbook = self._play = ""
        self._transfers: list[Transfer] = []
        self._loops: set[tuple[str, str]] = set()  # host and task, of which items were seen
        self._started: dict[tuple[str, str], StartedJob] = {}  # by host and Ansible's id of the job
        self._looked: dict[tuple[str, str], str] = {}  # by host and VM, where check mode would have exported it to
        self._left_out: set[tuple[str, str]] = set()
        self._audit: AuditLog | None = None

    def set_options(self, *args: Any, **options: Any) -> None:
        super().set_options(*args, **options)
        audit_log = self.get_option("audit_log")
        self._audit = AuditLog(Path(audit_log)) if audit_log else None

    def v2_playbook_on_start(self, playbook: Playbook) -> None:
        self._playbook = str(playbook._file_name)

    def v2_playbook_on_play_start(self, play: Play) -> None:
        self._play = play.get_name()

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        self._task_ended(result)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        self._task_ended(result, failed=True)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        self._task_ended(result, unreachable=True)

    def v2_runner_item_on_ok(self, result: CallbackTaskResult) -> None:
        self._item_ended(result)

    def v2_runner_item_on_failed(self, result: CallbackTaskResult) -> None:
        self._item_ended(result, failed=True)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        for job in self._started.values():
            self._tell(Transfer(job.host, job.kind, "started", time.time()), job.circumstances)
        transfers = [transfer for transfer in self._transfers if not transfer.check]
        if transfers and self.get_option("table"):
            self._print_table(transfers)
        if transfers and self.get_option("metrics_file"):
            self._write_metrics(Path(self.get_option("metrics_file")), transfers)
        self._close_audit_log()
        # `ansible-playbook` may be given several playbooks, each of which ends so.
        self._transfers.clear()
        self._started.clear()
        self._left_out.clear()

    def _item_ended(self, result: CallbackTaskResult, *, failed: bool = False) -> None:
        self._loops.add((result.host.get_name(), result.task._uuid))
        self._see(result, failed=failed)

    def _task_ended(self, result: CallbackTaskResult, *, failed: bool = False, unreachable: bool = False) -> None:
        """At the end of a loop, whose items were seen already, there is nothing new."""
        loop = (result.host.get_name(), result.task._uuid)
        if loop in self._loops:
            self._loops.remove(loop)
        else:
            self._see(result, failed=failed, unreachable=unreachable)

    def _see(self, result: CallbackTaskResult, *, failed: bool, unreachable: bool = False) -> None:
        task, told, host = result.task, result.result, result.host.get_name()
        name = task.action.rpartition(".")[2]
        if name == "async_status":
            self._see_status(result, failed)
            return
        if name == "set_fact" and not task.check_mode:
            self._see_plan(result)
            return
        if name not in KINDS or task.resolved_action != f"{COLLECTION}.{name}":
            return
        check, kind, circumstances = bool(task.check_mode), KINDS[name], self._circumstances(task.get_name())
        if task.async_val and not task.poll and not (check or failed or unreachable):
            job = str(told.get("ansible_job_id") or f"unknown {len(self._started)}")
            self._started[host, job] = StartedJob(host, kind, circumstances)
            return
        transfer = transfer_of(
            told, host=host, kind=kind, failed=failed, unreachable=unreachable, check=check, time=time.time()
        )
        self._tell(transfer, circumstances)

    def _see_status(self, result: CallbackTaskResult, failed: bool) -> None:
        told, host = result.result, result.host.get_name()
        job = self._started.pop((host, str(told.get("ansible_job_id"))), None) if told.get("finished") else None
        if job is not None:
            transfer = transfer_of(told, host=host, kind=job.kind, failed=failed, time=time.time())
            self._tell(transfer, job.circumstances)

    def _see_plan(self, result: CallbackTaskResult) -> None:
        """A batch sets its rows again once it exported; what its preflight left out is still among them."""
        host = result.host.get_name()
        for transfer in left_out(result.result, host, time.time()):
            key = host, transfer.vm
            if key not in self._left_out:
                self._left_out.add(key)
                self._tell(
                    replace(transfer, url=self._looked.get(key, "")), self._circumstances(result.task.get_name())
                )

    def _tell(self, transfer: Transfer, circumstances: Circumstances) -> None:
        self._transfers.append(transfer)
        if transfer.check:
            self._looked[transfer.host, transfer.vm] = transfer.url
        if self._audit is None:
            return
        try:
            self._audit.add(audit_entry(transfer, circumstances))
        except OSError as error:
            self._give_up_audit_log(error)

    def _close_audit_log(self) -> None:
        if self._audit is None:
            return
        try:
            self._audit.close()
        except OSError as error:
            self._give_up_audit_log(error)

    def _give_up_audit_log(self, error: OSError) -> None:
        """One warning is enough: what is missing from the log is known from then on."""
        self._audit = None
        self._display.warning(f"Transfers are not in the audit log {self.get_option('audit_log')} from now on: {error}")

    def _circumstances(self, task: str) -> Circumstances:
        return Circumstances(_user(), socket.gethostname(), self._playbook, self._play, task)

    def _print_table(self, transfers: list[Transfer]) -> None:
        self._display.banner(f"TRANSFERS: {summary_line(transfers)}")
        for line, outcome in table_lines(transfers):
            self._display.display(line, color=getattr(C, COLORS.get(outcome, ""), None))

    def _write_metrics(self, path: Path, transfers: list[Transfer]) -> None:
        try:
            write_metrics(path, (transfer for transfer in transfers if transfer.outcome != "started"))
        except (OSError, NotOurs) as error:
            self._display.warning(f"The metrics of transfers in {path} are not renewed: {error}")


def _user() -> str:
    """Of the process, not of its environment, which anyone can set."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # common in containers
        return str(os.getuid())
