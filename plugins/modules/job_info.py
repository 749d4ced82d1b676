#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: job_info
short_description: Look at running and past transfers
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Returns the records that transfers keep of themselves on the host that runs them.
  - With O(url), also the exports in that store, of which other hosts have the records. They tell how far they are every
    15 seconds. Of those that are done, their manifests tell; of those that failed, nothing is left there.
  - A record is kept for 30 days after the end of its job. Later jobs then remove it.
  - Together with C(async), C(poll) and C(until) this is how a play waits for a transfer and shows how far it is.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.info_module
  - vmferry.migrate._attributes.actiongroup_storage
  - vmferry.migrate._storage
  - vmferry.migrate._transfer.state_dir
options:
  url:
    description:
      - A store, in which the job is looked for when this host has no record of it, because another one runs it, or when
        its record here gives no sign of life.
      - As O(vmferry.migrate.vm_export#module:url).
    type: str
    required: false
  job:
    description:
      - One job, by its id. There is none in the result before the job has begun, nor of an id that nobody knows, and
        that is no error, so that a play may wait for it with C(until). Where it has to be there, C(assert) that
        RV(jobs) is not empty.
    type: str
  vm:
    description:
      - The jobs of this VM only, by the name that the task which started them used.
    type: str
  state:
    description:
      - The jobs in this state only. V(running) is every phase before the last three, V(ready), V(failed) and
        V(cancelled).
    type: str
    choices:
      - running
      - ready
      - failed
      - cancelled
  log_lines:
    description:
      - How many of the last lines of each job's log to return.
    type: int
    default: 20
seealso:
  - module: vmferry.migrate.job
  - module: vmferry.migrate.vm_export
  - module: vmferry.migrate.vm_import
"""

EXAMPLES = r"""
- name: Start an export
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: web01
    url: file:///srv/exports
    job_id: "{{ export_job_id }}"
  async: 86400
  poll: 0

- name: Wait for it, looking every ten seconds
  vmferry.migrate.job_info:
    job: "{{ export_job_id }}"
  register: found
  until: found.jobs | length > 0 and found.jobs[0].finished
  retries: 8640
  delay: 10

- name: See the exports that any host makes into a store
  vmferry.migrate.job_info:
    url: s3://backups/vms
    state: running

- name: See what failed
  vmferry.migrate.job_info:
    state: failed
    log_lines: 100
"""

RETURN = r"""
jobs:
  description: The jobs that fit.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The id of the job.
      returned: success
      type: str
      sample: 3f1c9a2b7d1e4c589a510c3a0d5b6e77
    kind:
      description: V(export), V(import), V(migrate), V(verify), V(upload), V(download) or V(copy).
      returned: success
      type: str
      sample: export
    vm:
      description: The VM, by the name that the task used.
      returned: success
      type: str
      sample: web01
    url:
      description: The store.
      returned: success
      type: str
      sample: s3://backups/vms
    phase:
      description: What it does, or how it ended.
      returned: success
      type: str
      sample: exporting
    note:
      description: What it waits for, or why it had nothing to do, where the phase does not say.
      returned: success
      type: str
      sample: waiting for one of 4 slots of libvirt qemu:///system
    state:
      description: V(running), V(ready), V(failed) or V(cancelled). A job that died counts as failed.
      returned: success
      type: str
      sample: running
    finished:
      description: Whether it ended, in whatever way.
      returned: success
      type: bool
      sample: false
    alive:
      description: >-
        Whether its process lives. Null where that cannot be seen from this host, and its record was written within the
        last five minutes; after that it counts as dead.
      returned: success
      type: bool
      sample: true
    undone:
      description: >-
        Of a job that failed or was cancelled, whether everything that it had made is removed; null for all others. If
        not, O(vmferry.migrate.job#module:state=cancelled) removes the rest, and so does the next run of the task.
      returned: success
      type: bool
      sample: true
    kept:
      description: >-
        What an export that failed or was killed left for the next run of the task to go on with, its id as C(export),
        and the time until which it is held as C(until). Null where there is nothing, and where only the store could
        tell and O(url) is not given.
      returned: success
      type: dict
      sample: {export: 20261121T063000Z-1a2b3c4d, until: "2026-11-21T07:31:12Z"}
    disk:
      description: Which disk it is at, counted from 1.
      returned: success
      type: int
      sample: 1
    disk_name:
      description: Its id, or what else the phase goes through.
      returned: success
      type: str
      sample: disk-0
    disks:
      description: How many disks there are.
      returned: success
      type: int
      sample: 2
    bytes_total:
      description: >-
        Bytes that the present phase goes through; of a job that is done, the sizes of its disks as the guest sees them.
      returned: success
      type: int
      sample: 6442450944
    bytes_read:
      description: Bytes read so far, by an export from the VM, by an import from the store.
      returned: success
      type: int
      sample: 536870912
    bytes_sent:
      description: Bytes sent so far.
      returned: success
      type: int
      sample: 537067520
    percent:
      description: How far it is, all disks weighted by their sizes.
      returned: success
      type: float
      sample: 41.7
    phase_percent:
      description: How far its present phase is.
      returned: success
      type: float
      sample: 83.4
    rate:
      description: Bytes of the disks that are done each second, as of late; 0 once it ended.
      returned: success
      type: int
      sample: 114227853
    average_rate:
      description: Bytes of the disks that were done each second, since the start, with its waits.
      returned: success
      type: int
      sample: 95869805
    eta:
      description: Seconds until the end at the present rate, or null while nothing can be said.
      returned: success
      type: float
      sample: 12.5
    duration:
      description: Seconds since the start, until the end if it ended.
      returned: success
      type: float
      sample: 8.9
    retries:
      description: How often a request was tried again.
      returned: success
      type: int
      sample: 0
    started:
      description: When it began, in seconds since the epoch.
      returned: success
      type: float
      sample: 1795242600.0
    started_at:
      description: The same in UTC.
      returned: success
      type: str
      sample: '2026-11-21T06:30:00Z'
    heartbeat:
      description: When its record was written last, in seconds since the epoch.
      returned: success
      type: float
      sample: 1795242608.9
    heartbeat_at:
      description: The same in UTC.
      returned: success
      type: str
      sample: '2026-11-21T06:30:08Z'
    ended:
      description: When it ended, in seconds since the epoch; null before.
      returned: success
      type: float
    ended_at:
      description: The same in UTC; an empty string before.
      returned: success
      type: str
    owner:
      description: The process that runs it, and its host.
      returned: success
      type: dict
    error:
      description: Why it failed, or null.
      returned: success
      type: dict
    log:
      description: The last lines of its log.
      returned: success
      type: list
      elements: dict
      contains:
        time:
          description: When, in seconds since the epoch.
          returned: success
          type: float
          sample: 1795242608.9
        at:
          description: The same in UTC.
          returned: success
          type: str
          sample: '2026-11-21T06:30:08Z'
        level:
          description: How bad it is.
          returned: success
          type: str
          sample: warning
        message:
          description: What there is to say.
          returned: success
          type: str
state_dir:
  description: The folder with the records that were looked at.
  returned: success
  type: str
  sample: /var/lib/vmferry
error:
  description: What went wrong, for programs. The sentence for people is in RV(msg).
  returned: failure
  type: dict
  contains:
    kind:
      description: >-
        One of V(not_found), V(permission_denied), V(unauthenticated), V(network), V(timeout), V(rate_limited),
        V(checksum_mismatch), V(invalid_config), V(no_space), V(conflict), V(busy), V(unsupported), V(quota),
        V(cancelled), V(internal).
      returned: failure
      type: str
      sample: no_space
    retryable:
      description: Whether the same task may go through later.
      returned: failure
      type: bool
      sample: false
    phase:
      description: What was under way.
      returned: failure
      type: str
      sample: exporting
    hint:
      description: What to do about it.
      returned: failure
      type: str
msg:
  description: One sentence that says what failed, and on which VM, disk or URL.
  returned: failure
  type: str
"""

from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import (
    ArgumentSpec,
    TaskArguments,
    invalid,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_store_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import (
    optional_store,
    storage_arguments,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.transfer_options import state_dir_arguments


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "job": {"type": "str"},
            "vm": {"type": "str"},
            "state": {"type": "str", "choices": ["running", "ready", "failed", "cancelled"]},
            "log_lines": {"type": "int", "default": 20},
        }
    )
    return own.merge(storage_arguments(required=False), state_dir_arguments())


def list_(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    lines = arguments["log_lines"]
    if lines < 0:
        raise invalid(f"log_lines is {lines}; it counts from 0.", "Use 0 for no lines at all.")
    store = optional_store(arguments)
    if store is not None:
        require_store_sdk(store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs

    return list_jobs(
        arguments.text("state_dir"),
        job=arguments.text("job"),
        vm=arguments.text("vm"),
        state=arguments.text("state"),
        log_lines=lines,
        store=store,
    )


def main() -> None:
    run(argument_spec(), list_)


if __name__ == "__main__":
    main()
