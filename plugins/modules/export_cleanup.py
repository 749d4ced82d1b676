#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: export_cleanup
short_description: Delete old exports, and what dead runs left
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Limits say which exports go, the oldest first. Protections win over every limit.
  - An export stays as long as one that stays stands on it, or is merged into that one with O(merge=true). It stays as
    long as a job is making one that will stand on it.
  - Limits do not know of protections. What a protection keeps beyond a limit stays in addition, and no newer export
    goes in its place.
  - Of the exports that go, those that stand on others go first. Each stops being an export before any of its data is
    removed, so an export is whole as long as it is listed. Whatever a killed run left is finished or taken back by the
    next one.
  - Deleting needs no key. A merge writes a manifest anew, so a merge into a signed export needs O(signing), and
    fails without it; all that is merged must be signed by a trusted key then, or by that one. What is not signed is
    merged without a signature.
  - A merge of encrypted exports needs O(encryption), and is left out without it, or with another passphrase.
  - With O(trusted_keys), an export that none of them signed counts as one whose manifest cannot be read. It is told as
    RV(broken), and it stays with all exports of its VM. So nobody who can only add objects to the store can make others
    go by exports that are newer.
  - In check mode, nothing is deleted, and the same is returned. A small object is written to the store and removed
    again.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_hypervisors_storage
  - vmferry.migrate._provider.hypervisors
  - vmferry.migrate._aws
  - vmferry.migrate._libvirt
  - vmferry.migrate._proxmox
  - vmferry.migrate._vsphere
  - vmferry.migrate._signing
  - vmferry.migrate._signing.trust
  - vmferry.migrate._encryption
  - vmferry.migrate._storage
attributes:
  check_mode:
    support: full
    details:
      - With O(orphans=true), check mode tells nothing of work folders and backup jobs on the provider. They cannot be
        looked at without being undone.
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - Exports grow older, and jobs die, between two runs.
  async:
    support: full
options:
  url:
    description:
      - The store in which the exports live, as in M(vmferry.migrate.vm_export), or the folder of one VM in it.
    type: str
    required: true
  vm:
    description:
      - Look at the exports of these VMs only, by name or by UUID.
    type: list
    elements: str
    default: []
  tags:
    description:
      - Look at the exports that have all of these tags only.
    type: list
    elements: str
    default: []
  purpose:
    description:
      - Look at the exports with this purpose only.
    type: str
  export:
    description:
      - Delete these exports, by id, and look at no others. Limits do not matter then, nor do clocks and the protections
        O(keep_last) to O(keep_yearly), which go by what else there is.
      - The task fails where one of them stays, and RV(failures) tells why. One that is not there is gone already.
    type: list
    elements: str
  max_age:
    description:
      - Delete exports that are older than this, for example V(30d). The age counts from the point in time.
      - If not given, the environment variable E(VMFERRY_CLEANUP_MAX_AGE) is used.
    type: str
  max_count:
    description:
      - Delete what is more than this number of exports of a VM. What is known to be damaged does not count.
      - Exports are counted among those that hold the same disks of the VM, or the same and others.
      - If not given, the environment variable E(VMFERRY_CLEANUP_MAX_COUNT) is used.
    type: int
  max_total_size:
    description:
      - Delete what together with all newer exports takes more than this, for example V(2TiB), of what O(max_age) and
        O(max_count) leave. All VMs are counted together. What is known to be damaged goes first.
      - Counted is what RV(exports[].size) tells, and for an export also what it stands on.
    type: str
  min_free:
    description:
      - Delete as many exports as it takes for this to be free in the store, for example V(100GiB). What is known to be
        damaged goes first.
      - A bucket cannot tell how much is free, and the option is refused there.
    type: str
  keep_last:
    description:
      - Keep the newest of each VM, this number of them. With V(0), the last export of a VM may go, too.
      - Where some of those are known to be damaged, as M(vmferry.migrate.export_verify) noted, this number of others is
        kept as well. So it is for O(keep_daily) to O(keep_yearly).
      - Exports of some of the VM's disks take no place of one that has more of them. For an export with a disk that the
        VM has no more, this holds until it is older than O(max_age).
    type: int
    default: 1
  keep_daily:
    description:
      - Keep the newest export of a day, for this number of days that have one. Days are of UTC, as are weeks, months
        and years.
    type: int
    default: 0
  keep_weekly:
    description:
      - Keep the newest export of a week, from Monday on, for this number of weeks that have one.
    type: int
    default: 0
  keep_monthly:
    description:
      - Keep the newest export of a month, for this number of months that have one.
    type: int
    default: 0
  keep_yearly:
    description:
      - Keep the newest export of a year, for this number of years that have one.
    type: int
    default: 0
  preserve:
    description:
      - Keep the exports one of these patterns fits, which are like those of a shell. They are compared with the id and
        the name of the export, the name of its VM, and each of its tags.
    type: list
    elements: str
    default: []
  min_retention:
    description:
      - Keep exports that are younger than this, for example V(7d).
    type: str
  merge:
    description:
      - Whether to merge an export that should go into the ones that stand on it, so that it can go. If not, it stays as
        long as one of them does.
      - The image of each of these is replaced by one that holds both, in one step. What it reads as stays the same at
        every moment. As much room as that takes must be free until then.
      - An export stays where a job is making an increment on it, or on what it would be merged into. So it does where
        that is not looked at because of O(vm), O(tags), O(purpose) or O(export).
      - The store must be able to write on conditions. A merge into an export that the store keeps locked is refused.
    type: bool
    default: false
  orphans:
    description:
      - Whether to remove what dead runs left in the store as well. These are exports that were never finished, uploads
        and files that nobody writes any more, and probes.
      - If a provider is given, what dead runs left there is removed as well. These are backup jobs, work folders, and
        change tokens that only exports in this store are known to have needed. VMs that dead exports had shut down are
        started again. Without the provider, a warning names them.
      - A run is dead when its process is, or, where that cannot be seen, when it has not renewed its claim for five
        minutes.
      - It does not depend on O(tags) and O(purpose).
    type: bool
    default: false
  credentials_from:
    description:
      - Whose environment variables, such as E(AWS_ACCESS_KEY_ID), the store's credentials come from where O(storage)
        has none.
      - So do those of a provider, such as E(VMWARE_USER) and E(VMWARE_PASSWORD), where its dict has none.
      - V(auto) is the control node's where it has them, and else those of the host that runs the module.
      - V(controller) fails where the control node has none. V(target) never looks there.
    type: str
    choices:
      - auto
      - controller
      - target
    default: auto
notes:
  - An export is pinned by an object called C(pinned) in its folder, beside the manifest. What is written in it is
    returned as the reason.
seealso:
  - module: vmferry.migrate.export_info
  - module: vmferry.migrate.vm_export
"""

EXAMPLES = r"""
- name: See what would go, and why
  vmferry.migrate.export_cleanup:
    url: file:///srv/exports
    max_age: 30d
    keep_last: 3
  check_mode: true
  register: cleanup

- name: Keep a week of days, a month of weeks and a year of months
  vmferry.migrate.export_cleanup:
    storage: "{{ s3_connection }}"
    url: s3://backups/vms
    max_age: 1d
    keep_daily: 7
    keep_weekly: 4
    keep_monthly: 12
    preserve: [before-*, golden]

- name: Keep a week of days in one chain, without a full export ever being made again
  vmferry.migrate.export_cleanup:
    url: file:///srv/exports
    max_count: 7
    merge: true

- name: Keep a week of days of exports that are signed, whatever else somebody puts into the bucket
  vmferry.migrate.export_cleanup:
    url: s3://backups/vms
    max_count: 7
    merge: true
    signing:
      key_file: /etc/vmferry/signing.pem
    trusted_keys: "{{ signing_public_keys }}"

- name: Keep the folder below 2 TiB, and the disk from running full
  vmferry.migrate.export_cleanup:
    url: file:///srv/exports
    max_total_size: 2TiB
    min_free: 100GiB
    min_retention: 3d

- name: Delete one export
  vmferry.migrate.export_cleanup:
    url: file:///srv/exports
    export: [20261121T063000Z-1a2b3c4d]

- name: Remove what dead runs left, in the store and on the host
  vmferry.migrate.export_cleanup:
    provider: libvirt
    url: file:///srv/exports
    orphans: true
"""

RETURN = r"""
exports:
  description: Each export that was looked at, the oldest of each VM first, and what became of it.
  returned: success, and a failure that RV(failures) explains
  type: list
  elements: dict
  contains:
    id:
      description: The id of the export.
      returned: success
      type: str
      sample: 20261121T063000Z-1a2b3c4d
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
    taken_at:
      description: The point in time, in UTC.
      returned: success
      type: str
      sample: '2026-11-21T06:30:00Z'
    size:
      description: What it takes in the store, in bytes, without the manifest itself.
      returned: success
      type: int
      sample: 1074135040
    parent:
      description: The id of the export it stands on, if any.
      returned: success
      type: str
    action:
      description: >-
        V(keep), V(delete), or V(merge) for what is merged into others and then deleted. What should go and stays
        because it could not be deleted is in RV(failures), and not in RV(deleted).
      returned: success
      type: str
      sample: delete
    into:
      description: The ids of the exports that it is merged into, if any.
      returned: success
      type: list
      elements: str
      sample: [20261021T063000Z-5e6f7a8b]
    rule:
      description:
        - What decides.
        - Of an export that goes, the limit. That is V(max_age), V(max_count), V(max_total_size) or V(min_free), or
          V(export) for one that was named.
        - Of one that stays, the protection. That is V(locked) where the store keeps an object of it by object lock;
          V(pinned), V(preserve), V(min_retention), V(keep_last), V(keep_daily), V(keep_weekly), V(keep_monthly) or
          V(keep_yearly); V(child) where an export that stays stands on it; V(in_use) where a job is making one that
          does, or may be; V(encrypted) where what stands on it is encrypted, and the task has not its passphrase, so
          that it is not merged; V(future) where it was taken later than now, by a clock that is wrong;
          V(within_limits) where no limit is over.
      returned: success
      type: str
      sample: max_age
    reason:
      description: The same in a sentence.
      returned: success
      type: str
      sample: It is 41.0 days old; max_age is 30.0 days.
deleted:
  description: The ids of the exports of which nothing is left. In check mode, of those that would go.
  returned: success, and a failure that RV(failures) explains
  type: list
  elements: str
  sample: [20261011T063000Z-5e6f7a8b]
freed:
  description: What they took, in bytes, less what others take more since these were merged into them.
  returned: success, and a failure that RV(failures) explains
  type: int
  sample: 1074135040
merged:
  description: Each export that others were merged into.
  returned: success, and a failure that RV(failures) explains
  type: list
  elements: dict
  contains:
    id:
      description: The id of the export.
      returned: success
      type: str
      sample: 20261021T063000Z-5e6f7a8b
    exports:
      description: The ids of those that were merged into it, the oldest first.
      returned: success
      type: list
      elements: str
      sample: [20261011T063000Z-1a2b3c4d]
    bytes_read:
      description: What was read of the images. In check mode, an upper bound.
      returned: success
      type: int
      sample: 1074135040
    bytes_written:
      description: The size of the images that took the place of the old ones. In check mode, an upper bound.
      returned: success
      type: int
      sample: 1074135040
orphans:
  description: What was removed of dead runs. In check mode, what would be.
  returned: success, and a failure that RV(failures) explains
  type: list
  elements: dict
  contains:
    kind:
      description: >-
        V(attempt), an export that was never finished; V(deletion), one whose deletion was not; V(merge), one that
        others were being merged into; V(upload), an unfinished object; V(mark), what is left beside a manifest;
        V(probe); V(provider), a backup job or a work folder; V(token), a change token; V(power), a VM that an export
        had shut down, which is started. V(deletion) and V(merge) are looked at with or without O(orphans).
      returned: success
      type: str
      sample: attempt
    where:
      description: The URL, or the VM of the provider.
      returned: success
      type: str
    reason:
      description: What it was, in a sentence.
      returned: success
      type: str
held:
  description: >-
    With O(orphans), unfinished exports of dead runs that stay, since the next run of their task can go on with them
    until then.
  returned: success, and a failure that RV(failures) explains
  type: list
  elements: dict
  contains:
    export:
      description: The id that it will have.
      returned: success
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    vm:
      description: The VM's name.
      returned: success
      type: str
      sample: web01
    url:
      description: Where it lies.
      returned: success
      type: str
    until:
      description: When it is held no longer, in UTC.
      returned: success
      type: str
      sample: "2026-11-21T07:30:00Z"
failures:
  description: What should have gone and could not. The task fails where there is any, and still returns the rest.
  returned: success, and a failure that RV(failures) explains
  type: list
  elements: dict
  contains:
    where:
      description: The URL, or the provider.
      returned: success
      type: str
    msg:
      description: What failed.
      returned: success
      type: str
    kind:
      description: The kind of the error, as in RV(error).
      returned: success
      type: str
diff:
  description: The ids of the exports that were looked at, before and after.
  returned: success, in diff mode
  type: dict
  contains:
    before:
      description: Before.
      returned: success
      type: dict
      contains:
        exports:
          description: The ids.
          returned: success
          type: list
          elements: str
    after:
      description: After. In check mode, as it would be.
      returned: success
      type: dict
      contains:
        exports:
          description: The ids.
          returned: success
          type: list
          elements: str
broken:
  description: What lies in the place of an export and has a manifest that cannot be relied on. Nothing beside it goes.
  returned: success, and a failure that RV(failures) explains
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
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.encryption_options import (
    encryption_arguments,
    with_passphrase,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.provider_options import (
    hypervisor_arguments,
    optional_provider,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.retention_options import (
    LIMITS,
    limits,
    protections,
    retention_arguments,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import (
    require_provider_sdk,
    require_store_sdk,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.signing_options import (
    seals_of_cleanup,
    signing_arguments,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import (
    storage_arguments,
    store_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import CleanupRequest


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "vm": {"type": "list", "elements": "str", "default": []},
            "tags": {"type": "list", "elements": "str", "default": []},
            "purpose": {"type": "str"},
            "merge": {"type": "bool", "default": False},
            "orphans": {"type": "bool", "default": False},
            # For the action plugin alone, which has acted on it before the module starts.
            "credentials_from": {"type": "str", "choices": ["auto", "controller", "target"], "default": "auto"},
        }
    )
    return own.merge(
        retention_arguments(), hypervisor_arguments(), storage_arguments(), signing_arguments(), encryption_arguments()
    )


def clean_up(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = CleanupRequest(
        store=store_spec(arguments),
        limits=limits(arguments),
        protections=protections(arguments),
        vm=tuple(arguments["vm"]),
        tags=tuple(arguments["tags"]),
        purpose=arguments.text("purpose"),
        merge=arguments["merge"],
        orphans=arguments["orphans"],
        provider=optional_provider(arguments) if arguments["orphans"] else None,
        seals=with_passphrase(seals_of_cleanup(arguments), arguments),
    )
    if not request.orphans and all(arguments[limit] is None for limit in LIMITS):
        raise invalid("The task sets no limit, so nothing would go.", f"Set one of {', '.join(LIMITS)}, or orphans.")
    if not all(request.vm):
        raise invalid("vm has an empty name, which fits no VM.", "Leave vm out to look at all.")
    require_store_sdk(request.store)
    if request.provider is not None:
        require_provider_sdk(request.provider)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports

    return clean_up_exports(request, check_mode)


def main() -> None:
    run(argument_spec(), clean_up)


if __name__ == "__main__":
    main()
