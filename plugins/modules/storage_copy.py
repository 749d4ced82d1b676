#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: storage_copy
short_description: Copy objects from one store to another
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Copies one object, or all whose keys begin alike, from a store to another one of any kind. Where both ends are the
    same system with the same credentials, and it can, it copies by itself. Else the bytes go through the memory of the
    host that runs the module, in several parts at once, and never through a file.
  - An object appears when it is whole. What is there already is not copied again.
  - A copy that failed or was killed is gone on with. The source is read again for that, and only what the destination
    does not have yet is sent.
  - To copy exports, use O(vmferry.migrate.vm_export#module:copies_to), which knows what they stand on.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_all
  - vmferry.migrate._two_stores
  - vmferry.migrate._transfer
  - vmferry.migrate._transfer.state_dir
attributes:
  check_mode:
    support: full
    details:
      - Compares both ends as far as they tell, looks whether the destination can be written, and returns RV(findings)
        and the RV(plan).
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - Of a copy that is there with the same size, the SHA-256 is compared, as it was noted at both ends or as a file
        has it. Where the source has none noted, the copy has noted of which version it is. A file of which neither
        tells is compared once it was received again.
      - With O(overwrite=always), each run copies again.
  async:
    support: full
options:
  checksum:
    description:
      - The SHA-256 that the one object must have, in hex, also after C(sha256:). If it has another, there is no copy.
        Where none was noted with the object, its bytes go through the host that runs the module.
    type: str
  overwrite:
    description:
      - What becomes of an object that is there. V(different) replaces it if its content is another, V(always) also if
        it is the same, V(never) leaves it as it is.
      - With V(never), also what comes there meanwhile stays, as far as the store keeps conditions.
    type: str
    choices:
      - never
      - different
      - always
    default: different
  transfer:
    description:
      - V(auto) leaves the copying to the server where it can. V(relay) sends the bytes through the host that runs the
        module in any case, which takes their SHA-256.
    type: str
    choices:
      - auto
      - relay
    default: auto
  verify:
    description:
      - V(stored) reads back what was sent, where the store was not seen to refuse what a checksum does not fit.
      - V(none) relies on what the store answers.
    type: str
    choices:
      - none
      - stored
    default: stored
  resume_window:
    description:
      - For how long what was sent by a run that failed or was killed is gone on with, for example V(12h). Older ones
        begin anew. What they had sent is removed by the next run of the same task.
      - With V(0), a run that fails leaves nothing, and a run that was killed is begun anew.
      - A copy by the server is gone on with where the server keeps what it had copied; see RV(objects[].bytes_kept).
      - If not given, it is V(1d), and V(0) for a destination that is spoken to by HTTP or WebDAV. What is gone on with
        there has to be sent in parts, and every byte of them crosses the network three times.
        RV(objects[].sent_as) says how an object was sent.
    type: str
notes:
  - O(bandwidth_limit) counts each byte once, on its way to the destination. Nothing is counted of what a server copies.
seealso:
  - module: vmferry.migrate.storage_info
  - module: vmferry.migrate.vm_export
"""

EXAMPLES = r"""
- name: Copy an image from a folder to a bucket
  vmferry.migrate.storage_copy:
    source:
      url: file:///srv/images/debian.iso
    destination:
      url: s3://images
      key: isos/debian.iso
      storage: "{{ s3_connection }}"

- name: Keep a bucket's images at another site, too
  vmferry.migrate.storage_copy:
    source:
      url: s3://images
      prefix: isos/
      storage: "{{ s3_here }}"
    destination:
      url: s3://images-of-here
      storage: "{{ s3_there }}"
    bandwidth_limit: 50MiB/s
"""

RETURN = r"""
objects:
  description: The objects, in the order of their keys.
  returned: outside check mode, also on failure once something was copied
  type: list
  elements: dict
  contains:
    source:
      description: The URL of the object.
      returned: success
      type: str
      sample: file:///srv/images/debian.iso
    key:
      description: The key of its copy.
      returned: success
      type: str
      sample: isos/debian.iso
    url:
      description: The URL of its copy.
      returned: success
      type: str
      sample: s3://images/isos/debian.iso
    outcome:
      description:
        - V(sent), V(unchanged), V(left) where another object may be there and O(overwrite=never), or V(failed) where
          the run ended before it was copied.
      returned: success
      type: str
      sample: sent
    by_server:
      description: Whether the server copied it by itself.
      returned: success
      type: bool
      sample: false
    size:
      description: Its size in bytes.
      returned: success
      type: int
      sample: 658505728
    checksum:
      description: The SHA-256, in hex. An empty string where it was neither noted nor taken.
      returned: success
      type: str
    etag:
      description: By which the destination tells versions of the copy apart.
      returned: success
      type: str
    verified:
      description: Whether there was a checksum to compare with, from O(checksum) or from the source.
      returned: success
      type: bool
      sample: true
    bytes_sent:
      description: Bytes that were sent by the host that runs the module.
      returned: success
      type: int
      sample: 658505728
    bytes_kept:
      description: Bytes that an earlier run had sent.
      returned: success
      type: int
      sample: 0
    sent_as:
      description:
        - V(parts), which a later run can go on with; V(joined_parts), which the store read back and put together;
          V(stream), from the first byte to the last in one request; empty for what was small, or was not sent.
      returned: success
      type: str
      sample: parts
    duration:
      description: How long it took, in seconds.
      returned: success
      type: float
      sample: 6.1
    rate:
      description: Bytes sent each second of that.
      returned: success
      type: int
      sample: 107951758
bytes_sent:
  description: Bytes that were sent by the host that runs the module.
  returned: outside check mode
  type: int
  sample: 658505728
rate:
  description: Bytes sent each second of the whole run.
  returned: outside check mode
  type: int
  sample: 98236123
job:
  description:
    - The transfer. Its record can be read with M(vmferry.migrate.job_info). In check mode there is none, and only
      C(kind) and C(url) say what was looked at.
  returned: always, also on failure once the job has begun
  type: dict
  contains:
    id:
      description: The id of the job.
      returned: outside check mode
      type: str
    vm:
      description: An empty string.
      returned: success
      type: str
    kind:
      description: V(copy).
      returned: success
      type: str
      sample: copy
    url:
      description: The destination, without what a URL may hold of secrets.
      returned: success
      type: str
      sample: s3://images
    record:
      description: The file with its progress, on the host that runs the module.
      returned: outside check mode
      type: str
    state_dir:
      description: The folder with the records of jobs.
      returned: outside check mode
      type: str
      sample: /var/lib/vmferry
    phase:
      description: What it did last, or how it ended.
      returned: outside async and check mode
      type: str
      sample: ready
    state:
      description: How it ended, V(ready), V(failed) or V(cancelled); or V(running) where that could not be seen.
      returned: outside async and check mode
      type: str
      sample: ready
    duration:
      description: Seconds from its start to its end.
      returned: outside async and check mode
      type: float
      sample: 11.6
    bytes_read:
      description: Bytes read from the source.
      returned: outside async and check mode
      type: int
      sample: 1073741824
    bytes_sent:
      description: Bytes sent to the destination.
      returned: outside async and check mode
      type: int
      sample: 1074135040
    average_rate:
      description:
        - Bytes done each second, from the start of the job to its end, with its waits.
      returned: outside async and check mode
      type: int
      sample: 95869805
    retries:
      description: How often a request was tried again.
      returned: outside async and check mode
      type: int
      sample: 0
findings:
  description: Everything the preflight found, all at once.
  returned: check mode
  type: list
  elements: dict
  contains:
    severity:
      description: V(error) would stop the run, V(warning) would weaken its result, V(info) is worth knowing.
      returned: success
      type: str
      sample: error
    message:
      description: What was found.
      returned: success
      type: str
    hint:
      description: What to do about it.
      returned: success
      type: str
    kind:
      description: For V(error), the kind of the failure it would be, as in RV(error.kind).
      returned: success
      type: str
      sample: checksum_mismatch
plan:
  description: What a run would do.
  returned: check mode
  type: dict
  contains:
    objects:
      description: The objects, with C(source), C(key), C(url), C(size) and C(outcome) as in RV(objects).
      returned: success
      type: list
      elements: dict
    bytes_to_send:
      description: Bytes that would be sent, or copied by the server.
      returned: success
      type: int
diff:
  description: What changed.
  returned: in diff mode
  type: dict
  contains:
    before:
      description: What was there before.
      returned: success
      type: dict
    after:
      description: What is there after the run, or would be.
      returned: success
      type: dict
kept:
  description:
    - What a failed run left for the next one to go on with. It is in RV(kept) of the failure only.
  returned: failure, where something was kept
  type: dict
  contains:
    export:
      description: The URL of the object that is not complete yet.
      returned: success
      type: str
    until:
      description: Until when the next run goes on with it, in UTC.
      returned: success
      type: str
      sample: "2026-11-22T06:42:10Z"
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
      sample: checksum_mismatch
    retryable:
      description: Whether the same task may go through later.
      returned: failure
      type: bool
      sample: false
    phase:
      description: What was under way.
      returned: failure
      type: str
      sample: transferring
    hint:
      description: What to do about it.
      returned: failure
      type: str
msg:
  description: One sentence that says what failed, and on which URL or file.
  returned: failure
  type: str
"""

from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import ArgumentSpec, TaskArguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.object_options import (
    copy_request,
    ends_arguments,
    overwrite_arguments,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_store_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.transfer_options import transfer_arguments


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "checksum": {"type": "str"},
            "transfer": {"type": "str", "choices": ["auto", "relay"], "default": "auto"},
            "verify": {"type": "str", "choices": ["none", "stored"], "default": "stored"},
        }
    )
    return own.merge(ends_arguments(), overwrite_arguments(), transfer_arguments())


def copy(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = copy_request(arguments)
    require_store_sdk(request.source)
    require_store_sdk(request.destination)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.copy_objects import copy_objects

    return copy_objects(request, check_mode)


def main() -> None:
    run(argument_spec(), copy)


if __name__ == "__main__":
    main()
