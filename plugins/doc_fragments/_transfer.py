# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How bytes move: the same for every module that moves some."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  parallel:
    description:
      - How many readers work at the same time. If not given, one for each core of the host that runs the module, and
        V(4) for files and objects.
      - Where a provider gives each disk of a VM as one slow stream, several disks are exported at the same time, but no
        more than this. They share the memory that one disk would take.
    type: int
  bandwidth_limit:
    description:
      - The highest rate of bytes to and from the store, with its unit, for example V(20MiB/s). V(0) is no limit.
      - A timetable of rates changes the limit by the time of day, for example
        V(08:00,10MiB/s 18:00,100MiB/s 23:00,off), also with weekdays as in V(Mon-08:00,10MiB/s Fri-18:00,off).
      - Times are the host's own.
      - It is shared by all transfers on that host that have the same limit and the same O(state_dir), exports and
        imports alike, whoever started them. O(priority) says in which shares. A transfer with another limit is not
        counted.
      - If not given, the environment variable E(VMFERRY_BANDWIDTH_LIMIT) is used.
    type: str
    default: '0'
  bandwidth_burst:
    description:
      - How much may go at once before O(bandwidth_limit) slows it down, for example V(4MiB). If not given, what the
        limit allows in a quarter of a second.
    type: str
  priority:
    description:
      - How much the transfer yields to others. Of a shared O(bandwidth_limit), V(high) gets twice as much as V(normal)
        and four times as much as V(low), while they all want it. Alone, each gets the whole.
      - V(low) also gives way in processor and disk time, with nice 10 and the lowest best-effort level of ionice. The
        others leave both as they are, as what they would gain the virtual machines would lose.
    type: str
    choices:
      - low
      - normal
      - high
    default: normal
  max_retries:
    description:
      - How often a request that failed on its way is tried again, with waits that grow exponentially. V(0) fails on the
        first error.
      - What cannot go through a second time, such as wrong credentials or a full disk, is never tried again.
    type: int
    default: 3
  idle_timeout:
    description:
      - For how long not a single byte may move before the transfer fails, for example V(90s) or V(5m).
    type: str
    default: 5m
  max_duration:
    description:
      - For how long the whole transfer may run, for example V(12h). If not given, there is no limit.
    type: str
  job_id:
    description:
      - The id that the transfer's job shall have, 8 to 64 letters, digits and dashes, as a UUID is. It begins with a
        letter or a digit, and must be a new one.
      - With it, M(vmferry.migrate.job_info) finds a job that was started with C(poll=0). If not given, a random one.
    type: str
  max_jobs:
    description:
      - How many transfers may run at once on one hypervisor or account, counted over all processes that use the same
        O(state_dir). Further ones wait, in phase V(pending), and O(max_duration) begins when their turn comes.
      - If not given, V(4) for libvirt and for a cluster of Proxmox VE, V(3) for vSphere and for one region of an
        account of AWS, and V(8) for the objects of one bucket, or of the folders of one host.
    type: int
  controller_timeout:
    description:
      - For how long the transfer goes on when nothing is heard of the control node, which may have been killed, or may
        have lost its connection. Then the transfer stops, as after any failure that may pass. An import and a
        migration undo what they did then, and an export is kept for the next run as its C(on_failure) says.
      - V(0) lets it go on to its end.
      - If not given, V(2m), and V(0) with C(async), where nobody watches.
    type: str
  progress:
    description:
      - Whether the output of the play shows how far the transfer is. V(lines) prints one line on each new phase, and
        one every O(progress_interval).
    type: str
    choices:
      - lines
      - none
    default: lines
  progress_interval:
    description:
      - How often a line is printed, for example V(5s) or V(1m). More than 0; O(progress=none) prints none.
    type: str
    default: 5s
  credentials_from:
    description:
      - Whose environment variables, such as E(AWS_ACCESS_KEY_ID) or E(GCP_SERVICE_ACCOUNT_FILE), the store's
        credentials come from where C(storage) has none.
      - So do those of a provider, such as E(VMWARE_USER) and E(VMWARE_PASSWORD), where its dict has none.
      - V(auto) is the control node's where it has them, and else those of the host that runs the module.
      - V(controller) fails where the control node has none. V(target) never looks there.
    type: str
    choices:
      - auto
      - controller
      - target
    default: auto
"""

    STATE_DIR = r"""
options:
  state_dir:
    description:
      - The folder on the host that runs the module for the records and logs of jobs.
      - If not given, the environment variable E(VMFERRY_STATE_DIR) is used. Without it, the folder is
        V(/var/lib/vmferry) for root and V($XDG_STATE_HOME/vmferry), usually V(~/.local/state/vmferry), for everyone
        else.
    type: path
"""
