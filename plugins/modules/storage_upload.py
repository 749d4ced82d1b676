#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: storage_upload
short_description: Send files into a store
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Sends files of the host that runs the module into a store, several parts and several files at once. An object
    appears when it is whole and proved.
  - What is there already, by its size and its SHA-256, is not sent again.
  - An upload that failed or was killed is gone on with. The file is read again for that, and only what the store does
    not have yet is sent.
  - The SHA-256 of a file is noted with the object, in a bucket among its metadata as C(vmferry-sha256). Where it has to
    be noted before the first byte is sent, which is in S3 and for more than 5 MiB, the file is read twice.
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
      - Compares the files with what is in the store, looks whether that can be written, and returns RV(findings) and
        the RV(plan).
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - Of a file that is there with the same size, the SHA-256 is compared with the one noted with the object. Of a
        file in a folder that has none noted, both are read. Of an object in a bucket that has none noted, the file is
        sent, after which there is one.
      - With O(overwrite=always), or a C({date}) in O(key), each run sends the files, or those of another day.
  async:
    support: full
options:
  src:
    description:
      - What to send, one path or a list of them, each a file, a folder or a glob such as V(/srv/isos/*.iso).
      - A file is sent by its name. Of a folder, all that is below it is sent, by the names below it, and of a glob all
        files that fit, by their names below the folder before its first wildcard. C(**) matches folders.
      - Links in a folder are left out, with a warning.
    type: raw
    required: true
  key:
    description:
      - The key of the object below O(url). In it, C({file}) is the file's name, C({vm}) is O(vm), and C({date}) and
        C({time}) are those of the run in UTC, for example V({vm}/{date}/{file}).
      - With C(/) at its end, C({file}) follows. Whatever is filled in, a key that would leave O(url) is refused.
    type: str
    default: '{file}'
  vm:
    description:
      - The name of the VM that the files are about, for O(key) and for the record of the job.
    type: str
  checksum:
    description:
      - The SHA-256 that the file must have, in hex, also after C(sha256:). If it has another, nothing is stored. Only
        for one file.
    type: str
  metadata:
    description:
      - What to note with each object, as names and texts. Names are made of a-z, 0-9 and C(-).
      - In a folder, it is in a file of its own, with C(.meta.json) added to the name.
      - If not given, what is noted with an object stays.
    type: dict
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
  keep_source:
    description:
      - Whether the files stay. With V(false), each is removed once its object is in the store, if it is still what was
        read.
    type: bool
    default: true
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
      - If not given, it is V(1d), and V(0) for a store that is spoken to by HTTP or WebDAV. What is gone on with
        there has to be sent in parts, and every byte of them crosses the network three times.
        RV(files[].sent_as) says how an object was sent.
    type: str
seealso:
  - module: vmferry.migrate.storage_download
  - module: vmferry.migrate.storage_info
"""

EXAMPLES = r"""
- name: Send one file
  vmferry.migrate.storage_upload:
    storage: "{{ s3_connection }}"
    url: s3://images
    src: /var/lib/libvirt/images/debian.iso
    key: isos/

- name: Send the configuration of a VM's host, by day
  vmferry.migrate.storage_upload:
    storage: "{{ s3_connection }}"
    url: s3://backups/configuration
    src:
      - /etc/libvirt
      - /srv/notes/*.md
    vm: web01
    key: '{vm}/{date}/{file}'
    metadata:
      by: ansible

- name: Move what is ready into a folder
  vmferry.migrate.storage_upload:
    url: file:///srv/images
    src: /var/tmp/ready/*.qcow2
    keep_source: false
"""

RETURN = r"""
files:
  description: The files, in order.
  returned: outside check mode, also on failure once something was sent
  type: list
  elements: dict
  contains:
    src:
      description: The path of the file.
      returned: success
      type: str
      sample: /var/lib/libvirt/images/debian.iso
    key:
      description: The key of the object.
      returned: success
      type: str
      sample: isos/debian.iso
    url:
      description: The URL of the object.
      returned: success
      type: str
      sample: s3://images/isos/debian.iso
    outcome:
      description:
        - V(sent), V(unchanged), V(noted) where only the metadata changed, V(left) where another object may be there and
          O(overwrite=never), or V(failed) where the run ended before it was sent.
      returned: success
      type: str
      sample: sent
    size:
      description: Its size in bytes.
      returned: success
      type: int
      sample: 658505728
    checksum:
      description: The SHA-256, in hex. An empty string where it was not looked at.
      returned: success
      type: str
    etag:
      description: By which the store tells versions of the object apart.
      returned: success
      type: str
    verified:
      description: Whether what is stored was compared with what was read, by the store's checksums or by reading it.
      returned: success
      type: bool
      sample: true
    bytes_sent:
      description: Bytes that were sent.
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
  description: Bytes that were sent.
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
      description: The VM that the task named, or an empty string.
      returned: success
      type: str
      sample: web01
    kind:
      description: V(upload).
      returned: success
      type: str
      sample: upload
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
      description: Bytes read from the files.
      returned: outside async and check mode
      type: int
      sample: 1073741824
    bytes_sent:
      description: Bytes sent to the store.
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
    files:
      description: The files, with C(src), C(key), C(url), C(size) and C(outcome) as in RV(files).
      returned: success
      type: list
      elements: dict
    bytes_to_send:
      description: Bytes that would be sent.
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
    overwrite_arguments,
    upload_request,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_store_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import storage_arguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.transfer_options import transfer_arguments


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "src": {"type": "raw", "required": True},
            "key": {"type": "str", "no_log": False, "default": "{file}"},
            "vm": {"type": "str"},
            "checksum": {"type": "str"},
            "metadata": {"type": "dict"},
            "keep_source": {"type": "bool", "default": True},
            "verify": {"type": "str", "choices": ["none", "stored"], "default": "stored"},
        }
    )
    return own.merge(overwrite_arguments(), storage_arguments(), transfer_arguments())


def upload(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = upload_request(arguments)
    require_store_sdk(request.store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.upload_files import upload_files

    return upload_files(request, check_mode)


def main() -> None:
    run(argument_spec(), upload)


if __name__ == "__main__":
    main()
