#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: job
short_description: Cancel a transfer, wait for it, or forget it
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Brings a transfer that another task started into the state that is asked for, and returns once that is true.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_any_storage
  - vmferry.migrate._provider.any
  - vmferry.migrate._aws
  - vmferry.migrate._libvirt
  - vmferry.migrate._proxmox
  - vmferry.migrate._vsphere
  - vmferry.migrate._image
  - vmferry.migrate._storage
  - vmferry.migrate._transfer.state_dir
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
  async:
    support: full
options:
  job:
    description:
      - The id of the job.
    type: str
    required: true
  state:
    description:
      - V(cancelled) stops the job and waits until it has undone what it did. Of a job that died, that could not undo
        everything, or that left what it had for the next run, this is removed, for which its provider and its store
        must be given; of a migration, each of its two providers by a task of its own, but not one whose files it read;
        of one that moved files or objects, only the store that it wrote to, on the host that it ran on.
        No other host can do that, since a store does not tell which job an upload is of, nor whether that is alive.
        A job that was done before is an error, also if it died right after its export was made, which
        its store tells.
      - V(finished) waits until the job has ended, in whatever way.
      - V(absent) removes the record and the log of a job that has ended, from this host.
    type: str
    choices:
      - cancelled
      - finished
      - absent
    required: true
  timeout:
    description:
      - For how long to wait, for example V(10m).
    type: str
    default: 10m
  url:
    description:
      - A store, in which the job is looked for when this host has no record of it, because another one runs it, or when
        its record here gives no sign of life.
      - As O(vmferry.migrate.vm_export#module:url).
    type: str
    required: false
seealso:
  - module: vmferry.migrate.job_info
  - module: vmferry.migrate.vm_export
  - module: vmferry.migrate.vm_import
"""

EXAMPLES = r"""
- name: Cancel an export, and go on when nothing of it is left
  vmferry.migrate.job:
    job: "{{ export_job_id }}"
    state: cancelled

- name: Cancel an export that another host makes
  vmferry.migrate.job:
    job: "{{ export_job_id }}"
    state: cancelled
    url: s3://backups/vms

- name: Remove what a job left that was killed
  vmferry.migrate.job:
    job: "{{ export_job_id }}"
    state: cancelled
    provider: libvirt
    url: s3://backups/vms

- name: Wait until a job has ended
  vmferry.migrate.job:
    job: "{{ export_job_id }}"
    state: finished
    timeout: 12h
  register: export

- name: Forget a job
  vmferry.migrate.job:
    job: "{{ export_job_id }}"
    state: absent
"""

RETURN = r"""
job:
  description: The job, as M(vmferry.migrate.job_info) shows it; null when it is forgotten.
  returned: success
  type: dict
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
      description: >-
        V(running), V(ready), V(failed) or V(cancelled). A job that died counts as failed. V(gone) where the job of
        another host has disappeared from the store meanwhile: it failed or was cancelled, and has undone what it did.
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
        not, O(state=cancelled) removes the rest, and so does the next run of the task.
      returned: success
      type: bool
      sample: true
    kept:
      description: >-
        What an export that failed or was killed left for the next run of the task to go on with, its id as C(export),
        and the time until which it is held as C(until); null where there is nothing.
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

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import ArgumentSpec, TaskArguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.provider_options import (
    any_provider_arguments,
    optional_provider,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import (
    require_provider_sdk,
    require_store_sdk,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import (
    optional_store,
    storage_arguments,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.transfer_options import state_dir_arguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import duration
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import JobRequest


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "job": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["cancelled", "finished", "absent"], "required": True},
            "timeout": {"type": "str", "default": "10m"},
        }
    )
    return own.merge(any_provider_arguments(), storage_arguments(required=False), state_dir_arguments())


def end(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    timeout = duration("timeout", arguments["timeout"])
    provider, store = optional_provider(arguments), optional_store(arguments)
    if provider is not None:
        require_provider_sdk(provider)
    if store is not None:
        require_store_sdk(store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job

    request = JobRequest(
        job=arguments["job"],
        state=arguments["state"],
        timeout=timeout,
        state_dir=arguments.text("state_dir"),
        store=store,
        provider=provider,
    )
    return end_job(request, check_mode)


def main() -> None:
    run(argument_spec(), end)


if __name__ == "__main__":
    main()
