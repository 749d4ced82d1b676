#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: storage_download
short_description: Bring an object of a store to a file
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Reads an object in several ranges at once, and writes it into a file of the host that runs the module.
  - The file appears under its name when it is whole, proved, and on the disk. Until then it is beside it, under a name
    that ends in C(.part).
  - A download that failed or was killed is gone on with, as long as the object is the same.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_storage
  - vmferry.migrate._storage
  - vmferry.migrate._transfer
  - vmferry.migrate._transfer.state_dir
attributes:
  check_mode:
    support: full
    details:
      - Looks at the object, at the file and whether the folder can be written, and returns RV(findings) and the
        RV(plan).
      - Where nothing tells the object's checksum, it cannot know whether the file is the same, and says that it would
        change.
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - A file of the same size and SHA-256 stays. Where nothing tells the object's SHA-256, it is read to find out.
      - With O(overwrite=always), each run writes the file anew.
  async:
    support: full
options:
  key:
    description:
      - The key of the object below O(url). If not given, O(url) is the URL of the object itself.
    type: str
  dest:
    description:
      - The path of the file. Of a folder, or of a path that ends in C(/), the file has the object's name in it.
      - The folder must exist, or at least the one above it.
    type: path
    required: true
  checksum:
    description:
      - The SHA-256 that the object must have, in hex, also after C(sha256:). If it has another, nothing is written.
      - If not given, it is compared with the one that was noted when the object was sent, where there is one.
    type: str
  overwrite:
    description:
      - What becomes of a file that is there. V(different) replaces it if its content is another, V(always) also if
        it is the same, V(never) leaves it as it is.
    type: str
    choices:
      - never
      - different
      - always
    default: different
  mode:
    description:
      - The mode of the file, as a quoted octal number. A file that stays keeps its own.
    type: raw
    default: '0600'
  owner:
    description:
      - The owner of the file, as a name or a number. If not given, the user that runs the module.
    type: str
  group:
    description:
      - The group of the file, as a name or a number. If not given, the group of the user that runs the module.
    type: str
  resume_window:
    description:
      - For how long what was sent by a run that failed or was killed is gone on with, for example V(12h). Older ones
        begin anew. What they had sent is removed by the next run of the same task.
      - With V(0), a run that fails leaves nothing, and a run that was killed is begun anew.
    type: str
    default: 1d
seealso:
  - module: vmferry.migrate.storage_upload
  - module: vmferry.migrate.storage_info
  - module: vmferry.migrate.vm_import
"""

EXAMPLES = r"""
- name: Bring an image
  vmferry.migrate.storage_download:
    storage: "{{ s3_connection }}"
    url: s3://images
    key: isos/debian.iso
    dest: /var/lib/libvirt/images/debian.iso
    checksum: sha256:013f5b44670d81280b5b1bc02455842b250df2f0c6763398feb69af1a805a14f

- name: The same by the object's own URL, into a folder, for everybody to read
  vmferry.migrate.storage_download:
    storage: "{{ s3_connection }}"
    url: s3://images/isos/debian.iso
    dest: /var/lib/libvirt/images/
    mode: '0644'
    bandwidth_limit: 50MiB/s
"""

RETURN = r"""
dest:
  description: The path of the file.
  returned: success
  type: str
  sample: /var/lib/libvirt/images/debian.iso
url:
  description: The URL of the object.
  returned: success
  type: str
  sample: s3://images/isos/debian.iso
size:
  description: The size of the file in bytes.
  returned: outside check mode
  type: int
  sample: 658505728
checksum:
  description: The SHA-256 of the file, in hex. An empty string where it was not looked at, with O(overwrite=never).
  returned: outside check mode
  type: str
etag:
  description: By which the store tells versions of the object apart.
  returned: outside check mode
  type: str
verified:
  description: Whether there was a checksum to compare with, from O(checksum) or from the store.
  returned: outside check mode
  type: bool
  sample: true
bytes_sent:
  description: Bytes that were received.
  returned: outside check mode
  type: int
  sample: 658505728
bytes_kept:
  description: Bytes that an earlier run had received.
  returned: outside check mode
  type: int
  sample: 0
duration:
  description: How long it took, in seconds.
  returned: outside check mode
  type: float
  sample: 6.1
rate:
  description: Bytes received each second of that.
  returned: outside check mode
  type: int
  sample: 107951758
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
      description: V(download).
      returned: success
      type: str
      sample: download
    url:
      description: The store, without what a URL may hold of secrets.
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
      description: Bytes read from the store.
      returned: outside async and check mode
      type: int
      sample: 1073741824
    bytes_sent:
      description: Bytes written to the file.
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
    url:
      description: The URL of the object.
      returned: success
      type: str
    dest:
      description: The path of the file.
      returned: success
      type: str
    size:
      description: The size of the object in bytes.
      returned: success
      type: int
    bytes_to_receive:
      description: At most so many bytes would be received.
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
    download_request,
    object_arguments,
    overwrite_arguments,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_store_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import storage_arguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.transfer_options import transfer_arguments


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "dest": {"type": "path", "required": True},
            "checksum": {"type": "str"},
            "mode": {"type": "raw", "default": "0600"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
        }
    )
    return own.merge(object_arguments(), overwrite_arguments("1d"), storage_arguments(), transfer_arguments())


def download(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = download_request(arguments)
    require_store_sdk(request.source.store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.download_object import download_object

    return download_object(request, check_mode)


def main() -> None:
    run(argument_spec(), download)


if __name__ == "__main__":
    main()
