#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: export_info
short_description: List the exports in a store
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Returns what the manifests in a store say, and the small notes that later runs left beside them. Nothing else is
    read.
  - With O(trusted_keys), exports that none of them signed, or that were changed since, are listed as what they claim to
    be, and RV(exports[].signature) tells which they are. They do not count in RV(statistics), and are not found by
    O(export). What lies among the exports of O(vm), was changed, and claims to be of another one is in RV(broken).
    Nothing else of this collection acts on any of them where O(trusted_keys) is given.
  - O(url) may also be the folder of one VM or of one export. It fails where there is no such folder or bucket, so that
    a typing error does not look like a store without exports.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.info_module
  - vmferry.migrate._attributes.actiongroup_storage
  - vmferry.migrate._signing.trust
  - vmferry.migrate._storage
options:
  vm:
    description:
      - The exports of this VM only, by its name or by its UUID.
    type: str
  export:
    description:
      - One export, by its id or by its name. It must exist, and be signed by one of O(trusted_keys), if there are any.
    type: str
  tags:
    description:
      - The exports that have all of these tags only.
    type: list
    elements: str
    default: []
  purpose:
    description:
      - The exports with this purpose only.
    type: str
  statistics:
    description:
      - Whether to add up the exports that were found, as RV(statistics).
    type: bool
    default: false
seealso:
  - module: vmferry.migrate.vm_export
  - module: vmferry.migrate.vm_import
  - module: vmferry.migrate.export_verify
"""

EXAMPLES = r"""
- name: List all exports
  vmferry.migrate.export_info:
    url: file:///srv/exports
  register: all_exports

- name: See how much the daily backups of a VM take
  vmferry.migrate.export_info:
    storage: "{{ s3_connection }}"
    url: s3://backups/vms
    vm: web01
    tags: [daily]
    purpose: backup
    statistics: true
  register: daily

- name: Make sure that there is an export of that name
  vmferry.migrate.export_info:
    url: file:///srv/exports
    vm: db01
    export: before-upgrade
"""

RETURN = r"""
exports:
  description: The exports, the oldest of each VM first.
  returned: success
  type: list
  elements: dict
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
    encryption:
      description: How its images are encrypted, V(luks) or V(none).
      returned: success
      type: str
      sample: none
    signature:
      description: >-
        V(none) where the manifest is not signed, V(unchecked) where it is and O(trusted_keys) is left out, V(valid)
        where one of the trusted keys signed it, V(invalid) where none did, or where it was changed since.
      returned: success
      type: str
      sample: valid
    signed_by:
      description: >-
        The public keys that the manifest says it is signed with, in hexadecimal digits. Anybody can write one there;
        only RV(exports[].signature) tells whether one that is trusted did sign.
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
              O(ignore:level=stored); of an image in an OVA or an OVF, from the start. An empty string before.
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
              with O(ignore:level=stored), and of an image in an OVF from the start. An empty string before.
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
broken:
  description: What lies in the place of an export and has a manifest that cannot be relied on.
  returned: success
  type: list
  elements: dict
  contains:
    url:
      description: Where it lies.
      returned: success
      type: str
    msg:
      description: What is wrong with it.
      returned: success
      type: str
statistics:
  description: The exports that were found, added up.
  returned: when O(statistics=true)
  type: dict
  contains:
    exports:
      description: How many exports.
      returned: success
      type: int
      sample: 7
    untrusted:
      description: How many more none of O(trusted_keys) signed. All other numbers here are without them.
      returned: success
      type: int
      sample: 0
    vms:
      description: Of how many VMs.
      returned: success
      type: int
      sample: 1
    size:
      description: The sizes of their disks as the guests see them, in bytes.
      returned: success
      type: int
    bytes_stored:
      description: The sizes of their images, in bytes.
      returned: success
      type: int
    oldest:
      description: The oldest point in time, in UTC, if there is any export.
      returned: success
      type: str
      sample: '2026-11-14T06:30:00Z'
    newest:
      description: The newest point in time, in UTC, if there is any export.
      returned: success
      type: str
      sample: '2026-11-21T06:30:00Z'
    free_space:
      description: The bytes that the store can still take, if that is a number.
      returned: success
      type: int
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
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_store_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.signing_options import trust, trust_arguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import (
    storage_arguments,
    store_spec,
)


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "vm": {"type": "str"},
            "export": {"type": "str"},
            "tags": {"type": "list", "elements": "str", "default": []},
            "purpose": {"type": "str"},
            "statistics": {"type": "bool", "default": False},
        }
    )
    return own.merge(storage_arguments(), trust_arguments())


def list_(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    store = store_spec(arguments)
    require_store_sdk(store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports

    return list_exports(
        store,
        vm=arguments.text("vm"),
        export=arguments.text("export"),
        tags=arguments["tags"],
        purpose=arguments.text("purpose"),
        statistics=arguments["statistics"],
        seals=trust(arguments),
    )


def main() -> None:
    run(argument_spec(), list_)


if __name__ == "__main__":
    main()
