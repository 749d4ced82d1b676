#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: export_verify
short_description: Look at an export again and prove that it can be restored
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Compares what lies in a store with what was read from the VM when it was exported. Of an increment, everything that
    it stands on is looked at, too.
  - It goes on after what it finds, and fails with all RV(problems), each with the export, the disk, the object, and
    where it can be told the place.
  - What was found is noted in an object beside the manifest, for O(max_age) and M(vmferry.migrate.export_info).
  - A pass of O(level=stored) also writes the SHA-256 of each whole image into the manifest, as C(checksum) of a disk,
    which other tools compare. It does so only where the store can refuse to replace what somebody else has changed.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_libvirt_storage
  - vmferry.migrate._provider
  - vmferry.migrate._libvirt
  - vmferry.migrate._signing.trust
  - vmferry.migrate._encryption
  - vmferry.migrate._storage
  - vmferry.migrate._transfer
  - vmferry.migrate._transfer.state_dir
attributes:
  check_mode:
    support: full
    details:
      - Looks whether all objects are there with their sizes, reads no image, and returns RV(findings) and the RV(plan).
      - For O(level=boot), also what would stop the import.
      - Of a run that would fail, nothing counts as changed, and what would make it fail is also told by warnings.
  diff_mode:
    support: full
    details:
      - Shows what was last found, before and after.
  idempotent:
    support: partial
    details:
      - With O(max_age), while an earlier pass is younger than that, a second run does nothing.
      - Without it, every run looks again and notes what it found, which counts as changed.
  async:
    support: full
options:
  export:
    description:
      - The export, by its id or by its name. If not given, the newest.
      - O(url) may also be the folder of one VM. The folder of one export is enough for an export that stands on no
        other.
    type: str
  vm:
    description:
      - The VM that was exported, by its name or by its UUID.
      - May be left out when O(url) has the exports of only one VM.
    type: str
  level:
    description:
      - How much is proved.
      - V(manifest) looks whether the manifests of the whole chain can be read and fit each other, disk by disk, and
        whether every object is there and as long as it should be. It reads little more than the manifests.
      - V(stored) reads every byte of every object of the chain and compares it with the proofs in the manifests. It
        also takes the SHA-256 of each whole image of the export, which M(vmferry.migrate.export_info) then returns.
      - V(content) reads every disk as a restore would, through all images of the chain, and compares every 64 KiB with
        the digest of what was read from the VM. What a newer image hides is not read.
      - V(boot) imports the export on the provider under a name of its own, without a network, comparing as V(content)
        does, starts it, waits for the markers in O(boot), and removes the VM and its disks again, however it went.
    type: str
    choices:
      - manifest
      - stored
      - content
      - boot
    default: content
  max_age:
    description:
      - Do nothing if this O(level), or one that is named after it in the list above, passed less than this ago, for
        example V(7d), and nothing failed since.
    type: str
  boot:
    description:
      - For O(level=boot), what tells that the VM has booted, at least one of O(boot.serial), O(boot.agent) and
        O(boot.screen). All that are given have to be seen.
    type: dict
    suboptions:
      serial:
        description:
          - A regular expression in the syntax of Python that is searched for in what the VM prints on its first serial
            port, for example V(login:). C(^) and C($) match at lines.
        type: str
      agent:
        description:
          - Whether to wait until the guest agent answers.
        type: bool
        default: false
      screen:
        description:
          - Whether to wait until the screen shows something that is not the firmware's. That is, twice in a row, a
            picture with more than a cursor in which most of the firmware's first one is gone.
          - A system that only adds lines below the firmware's is not seen by it.
          - This is the weakest of the three, for guests that have neither of the others. An error of a boot loader that
            clears the screen passes for a boot, and so does the shell of a UEFI firmware that found nothing to boot.
        type: bool
        default: false
      timeout:
        description:
          - How long to wait from the start of the VM, for example V(5m).
        type: str
        default: 5m
      storage:
        description:
          - Where the disks go meanwhile. For libvirt, a storage pool or the path of a folder.
          - If not given, the provider's default.
        type: str
notes:
  - O(provider) and its settings are needed for O(level=boot) alone.
  - Where the store cannot be written, a warning tells that nothing was noted, and nothing counts as changed.
seealso:
  - module: vmferry.migrate.export_info
  - module: vmferry.migrate.vm_export
  - module: vmferry.migrate.vm_import
"""

EXAMPLES = r"""
- name: Prove once a week that the newest export of a VM can be restored
  vmferry.migrate.export_verify:
    storage: "{{ s3_connection }}"
    url: s3://backups/vms
    vm: web01
    max_age: 7d

- name: Look at every byte of one export
  vmferry.migrate.export_verify:
    url: file:///srv/exports
    vm: db01
    export: before-upgrade
    level: stored

- name: Look at every byte, and at who signed it
  vmferry.migrate.export_verify:
    url: s3://backups/vms
    vm: web01
    level: stored
    trusted_keys: ["{{ lookup('ansible.builtin.file', 'signing.pub') }}"]

- name: Read an encrypted export as a restore would
  vmferry.migrate.export_verify:
    url: s3://backups/vms
    vm: web01
    encryption:
      passphrase_file: /etc/vmferry/passphrase

- name: Show that it boots
  vmferry.migrate.export_verify:
    provider: libvirt
    url: file:///srv/exports
    vm: web01
    level: boot
    boot:
      serial: 'login:'
      timeout: 10m
      storage: scratch

- name: Wait until the guest agent of the copy answers
  vmferry.migrate.export_verify:
    libvirt: "{{ kvm_connection }}"
    url: file:///srv/exports
    vm: db01
    level: boot
    boot:
      agent: true
"""

RETURN = r"""
export:
  description: The export that was looked at.
  returned: outside check mode, also when problems were found
  type: dict
  contains:
    id:
      description: The id of the export. Ids sort by time.
      returned: success
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    chain_id:
      description: The id of the chain the export belongs to.
      returned: success
      type: str
      sample: 5e6f7a8b
    name:
      description: The name it was given, or an empty string.
      returned: success
      type: str
      sample: before-upgrade
    url:
      description: The folder of the export.
      returned: success
      type: str
      sample: s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d
    manifest:
      description: The URL of its manifest.
      returned: success
      type: str
      sample: s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d/manifest.json
    mode:
      description: Whether it stands on its own.
      returned: success
      type: str
      sample: full
    parent:
      description: The id of the export it stands on, if any.
      returned: success
      type: str
    reason:
      description: Why the mode was chosen.
      returned: success
      type: str
    fell_back:
      description: Why O(ignore:mode=auto) could not take an increment, or an empty string.
      returned: success
      type: str
      sample: there is no export to stand on
    change_token:
      description: By which the VM remembers this point in time, or an empty string.
      returned: success
      type: str
      sample: vmferry-5e6f7a8b-1a2b3c4d
    snapshot:
      description: The name of the snapshot that was exported, or an empty string where the VM itself was.
      returned: success
      type: str
      sample: before-upgrade
    consistency:
      description: How the point in time was taken.
      returned: success
      type: str
      sample: quiesced
    format:
      description: The format of the disk images.
      returned: success
      type: str
      sample: qcow2
    compression:
      description: How clusters of the disk images are compressed.
      returned: success
      type: str
      sample: none
    tags:
      description: The tags it was given.
      returned: success
      type: list
      elements: str
      sample: [daily]
    purpose:
      description: The purpose it was given, or an empty string.
      returned: success
      type: str
      sample: backup
    verified:
      description: How it was checked before it was committed.
      returned: success
      type: str
      sample: stored
    taken_at:
      description: The point in time, in UTC.
      returned: success
      type: str
      sample: '2026-11-21T06:30:00Z'
    created_at:
      description: When the export was committed, in UTC.
      returned: success
      type: str
      sample: '2026-11-21T06:42:10Z'
    checked_at:
      description:
        - When the VM was last seen to equal the export, because a later run found nothing changed, in UTC. An empty
          string if there was no such run.
      returned: success
      type: str
      sample: "2026-11-21T07:30:00Z"
    encryption:
      description: How its images are encrypted, V(luks) or V(none).
      returned: success
      type: str
      sample: none
    signature:
      description: >-
        V(none) where the manifest is not signed, V(unchecked) where it is and O(trusted_keys) is left out, V(valid)
        where one of the trusted keys signed it, or the passphrase of O(encryption).
      returned: success
      type: str
      sample: valid
    signed_by:
      description: The public keys that the manifest says it is signed with, in hexadecimal digits.
      returned: success
      type: list
      elements: str
      sample: [d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a]
    pinned:
      description: Whether M(vmferry.migrate.export_cleanup) leaves it alone, since an object C(pinned) lies beside it.
      returned: success
      type: bool
      sample: false
    pin_reason:
      description: What is written in that object, or an empty string.
      returned: success
      type: str
    last_verified:
      description: What M(vmferry.migrate.export_verify) last found when it looked at the export again.
      returned: success
      type: dict
      contains:
        at:
          description: When that was, in UTC. An empty string if it never was looked at again.
          returned: success
          type: str
          sample: "2026-11-22T03:00:00Z"
        level:
          description: How it was looked at, or an empty string.
          returned: success
          type: str
          sample: content
        passed:
          description:
            - Whether it passed. A failure stays until its level, or a higher one, passes.
          returned: success
          type: bool
          sample: true
        problems:
          description: How many problems were found.
          returned: success
          type: int
          sample: 0
        levels:
          description:
            - For each level, when it last passed, in UTC. An empty string where it did not, or not since the last
              failure.
          returned: success
          type: dict
          contains:
            manifest:
              description: When V(manifest) last passed.
              returned: success
              type: str
            stored:
              description: When V(stored) last passed.
              returned: success
              type: str
            content:
              description: When V(content) last passed.
              returned: success
              type: str
              sample: "2026-11-22T03:00:00Z"
            boot:
              description: When V(boot) last passed.
              returned: success
              type: str
    vm:
      description: The VM that was exported.
      returned: success
      type: dict
      contains:
        id:
          description: The provider's own id of the VM.
          returned: success
          type: str
          sample: 1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77
        name:
          description: The name of the VM at that time.
          returned: success
          type: str
          sample: web01
        provider:
          description: The provider that had the VM.
          returned: success
          type: str
          sample: libvirt
    disks:
      description: The disks, the boot disk first.
      returned: success
      type: list
      elements: dict
      contains:
        id:
          description: Our id of the disk.
          returned: success
          type: str
          sample: disk-0
        name:
          description: The provider's name of the disk.
          returned: success
          type: str
          sample: vda
        size:
          description: The size of the disk as the guest sees it, in bytes.
          returned: success
          type: int
          sample: 6442450944
        bytes_read:
          description: Bytes read from the VM.
          returned: success
          type: int
          sample: 1073741824
        bytes_stored:
          description: The size of the image in the store, in bytes.
          returned: success
          type: int
          sample: 1074135040
        sent_as:
          description:
            - How the image was sent, V(parts) or V(stream), or V(joined_parts) where the store has no parts and they
              were joined by reading them back. Empty for an export that does not say.
          returned: success
          type: str
          sample: parts
        read_by:
          description:
            - How the disk was read, where the provider has several ways. On vSphere V(nbd), V(datastore) or V(lease).
          returned: success
          type: str
          sample: lease
        bytes_changed:
          description: Bytes that differ from the parent; for a full export, all that is not empty.
          returned: success
          type: int
          sample: 1073741824
        bytes_saved:
          description: What did not have to be stored, in bytes.
          returned: success
          type: int
          sample: 5368315904
        digest_root:
          description: The digest of the guest's data, independent of the format.
          returned: success
          type: str
        sha256:
          description:
            - The SHA-256 of the whole image, once M(vmferry.migrate.export_verify) has read all of it with
              O(level=stored); of an image in an OVA or an OVF, from the start. An empty string before.
          returned: success
          type: str
        offset:
          description:
            - Where in the object at its URL the image begins, in bytes. V(0) but in an OVA or a VMA. In a compressed
              OVA, where in what that unpacks to.
          returned: success
          type: int
          sample: 0
        url:
          description: The URL of the image.
          returned: success
          type: str
          sample: s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d/disk-0.qcow2
        duration:
          description: How long the disk took, in seconds.
          returned: success
          type: float
          sample: 9.4
        rate:
          description: Bytes read per second.
          returned: success
          type: int
          sample: 114227853
    files:
      description: What lies in the folder of the export, without its manifest.
      returned: success
      type: list
      elements: dict
      contains:
        path:
          description: The name of the file, below the folder of the export.
          returned: success
          type: str
          sample: web01.ova
        size:
          description: Its size in bytes.
          returned: success
          type: int
          sample: 1074135040
        sha256:
          description:
            - Its SHA-256. Of an image or an OVA it is known once M(vmferry.migrate.export_verify) has read all of it
              with O(level=stored), and of an image in an OVF from the start. An empty string before.
          returned: success
          type: str
        url:
          description: Its URL.
          returned: success
          type: str
          sample: s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d/web01.ova
    duration:
      description: How long the export took, in seconds, without what it waited for a slot.
      returned: success
      type: float
      sample: 11.2
    rate:
      description: Bytes read from the VM each second of that duration. What is sent may be less.
      returned: success
      type: int
      sample: 95869805
    structure:
      description: The ids of the exports a restore reads, the full one first.
      returned: success
      type: list
      elements: str
      sample: [20261121T063000Z-1a2b3c4d]
    warnings:
      description: What the export met that is worth knowing and did not stop it.
      returned: success
      type: list
      elements: str
level:
  description: How it was looked at, O(level).
  returned: outside check mode
  type: str
  sample: content
problems:
  description: Everything that is wrong, in the order in which it was found.
  returned: outside check mode
  type: list
  elements: dict
  contains:
    problem:
      description: A sentence about it.
      returned: success
      type: str
      sample: >-
        disk-0 is damaged: bytes 1048576 to 1114112 are not what was read when it was exported. They lie in
        file:///srv/exports/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d/disk-0.qcow2.
    export:
      description: The id of the export that it is about, which may be one that the verified one stands on.
      returned: success
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    disk:
      description: Our id of the disk, or an empty string.
      returned: success
      type: str
      sample: disk-0
    object:
      description: The object beside the manifest of that export, by its path, or an empty string.
      returned: success
      type: str
      sample: disk-0.qcow2
    offset:
      description: Where it begins on the disk as the guest sees it, in bytes, if that is known.
      returned: success
      type: int
      sample: 1048576
    object_offset:
      description: Where it begins in the object, in bytes, if that is known.
      returned: success
      type: int
    length:
      description: How many bytes from there on are in question, if that is known.
      returned: success
      type: int
      sample: 65536
boot:
  description: The boot.
  returned: success, with O(level=boot), unless an earlier pass was enough
  type: dict
  contains:
    seconds:
      description: How long it took from the start of the VM until all markers were seen.
      returned: success
      type: float
      sample: 8.3
job:
  description:
    - The transfer. Its record can be read with M(vmferry.migrate.job_info). In check mode there is none, and only
      C(vm), C(kind) and C(url) say what was looked at.
  returned: always, also on failure once the job has begun
  type: dict
  contains:
    id:
      description: The id of the job.
      returned: outside check mode
      type: str
    vm:
      description: The VM that was exported.
      returned: success
      type: str
      sample: web01
    kind:
      description: V(verify).
      returned: success
      type: str
      sample: verify
    url:
      description: The store, without what a URL may hold of secrets.
      returned: success
      type: str
      sample: s3://backups/vms
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
      description: Bytes sent to the new disks.
      returned: outside async and check mode
      type: int
      sample: 1074135040
    average_rate:
      description:
        - Bytes of the disks that were done each second, from the start of the job to its end, with its waits.
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
    export:
      description: The id of the export that would be looked at.
      returned: success
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    level:
      description: How.
      returned: success
      type: str
      sample: content
    bytes_to_read:
      description: At most so many bytes of images would be read.
      returned: success
      type: int
    disks:
      description: The disks.
      returned: success
      type: list
      elements: dict
      contains:
        id:
          description: Our id of the disk.
          returned: success
          type: str
          sample: disk-0
        size:
          description: The size of the disk as the guest sees it, in bytes.
          returned: success
          type: int
        bytes_to_read:
          description: At most so many bytes of its images would be read.
          returned: success
          type: int
diff:
  description: What was last found.
  returned: in diff mode
  type: dict
  contains:
    before:
      description: Before the run.
      returned: success
      type: dict
    after:
      description: After it.
      returned: success
      type: dict
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
      sample: verifying
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
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.encryption_options import (
    encryption_arguments,
    with_passphrase,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.provider_options import (
    provider_arguments,
    provider_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import (
    require_provider_sdk,
    require_store_sdk,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.signing_options import trust, trust_arguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import (
    storage_arguments,
    store_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.transfer_options import (
    transfer_arguments,
    transfer_options,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import (
    duration,
    optional_duration,
    regular_expression,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import VerifyRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import BootMarkers


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "export": {"type": "str"},
            "vm": {"type": "str"},
            "level": {"type": "str", "choices": ["manifest", "stored", "content", "boot"], "default": "content"},
            "max_age": {"type": "str"},
            "boot": {
                "type": "dict",
                "apply_defaults": True,
                "options": {
                    "serial": {"type": "str"},
                    "agent": {"type": "bool", "default": False},
                    "screen": {"type": "bool", "default": False},
                    "timeout": {"type": "str", "default": "5m"},
                    "storage": {"type": "str"},
                },
            },
        }
    )
    return own.merge(
        provider_arguments(), storage_arguments(), transfer_arguments(), trust_arguments(), encryption_arguments()
    )


def verify_request(arguments: TaskArguments) -> VerifyRequest:
    boot = arguments["boot"]
    return VerifyRequest(
        store=store_spec(arguments),
        level=arguments["level"],
        export=arguments.text("export"),
        vm=arguments.text("vm"),
        max_age=optional_duration("max_age", arguments["max_age"]),
        provider=provider_spec(arguments) if arguments["level"] == "boot" else None,
        storage=boot["storage"] or "",
        markers=BootMarkers(
            serial=regular_expression("boot.serial", boot["serial"]),
            agent=boot["agent"],
            screen=boot["screen"],
            timeout=duration("boot.timeout", boot["timeout"]),
        ),
        seals=with_passphrase(trust(arguments), arguments, strict=True),
        transfer=transfer_options(arguments),
    )


def verify(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = verify_request(arguments)
    if request.provider is not None:
        require_provider_sdk(request.provider)
    require_store_sdk(request.store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export

    return verify_export(request, check_mode)


def main() -> None:
    run(argument_spec(), verify)


if __name__ == "__main__":
    main()
