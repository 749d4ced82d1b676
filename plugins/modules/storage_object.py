#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: storage_object
short_description: Remove an object from a store
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Removes one object. To remove exports, use M(vmferry.migrate.export_cleanup), which knows what they stand on.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_storage
  - vmferry.migrate._storage
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  async:
    support: full
options:
  key:
    description:
      - The key of the object below O(url). If not given, O(url) is the URL of the object itself.
    type: str
  state:
    description:
      - What the object shall be.
    type: str
    choices:
      - absent
    required: true
  if_match:
    description:
      - Remove the object only if it has this etag, as M(vmferry.migrate.storage_info) returns it. Otherwise, the task
        fails. Most stores look at it before they remove the object, and not in the same moment.
    type: str
  credentials_from:
    description:
      - Whose environment variables, such as E(AWS_ACCESS_KEY_ID), the store's credentials come from where O(storage)
        has none.
      - V(auto) is the control node's where it has them, and else those of the host that runs the module.
      - V(controller) fails where the control node has none. V(target) never looks there.
    type: str
    choices:
      - auto
      - controller
      - target
    default: auto
notes:
  - A file's metadata, in the file with C(.meta.json) added to its name, goes with it.
  - A folder and a pattern are no objects. Where O(key) is one, nothing is removed, and a warning says what is still
    there.
seealso:
  - module: vmferry.migrate.storage_info
  - module: vmferry.migrate.export_cleanup
"""

EXAMPLES = r"""
- name: Remove an image
  vmferry.migrate.storage_object:
    storage: "{{ s3_connection }}"
    url: s3://images
    key: isos/debian-11.iso
    state: absent

- name: Remove it only if it is the one that was looked at
  vmferry.migrate.storage_object:
    url: file:///srv/images/debian-11.iso
    if_match: "{{ iso.objects[0].etag }}"
    state: absent
"""

RETURN = r"""
object:
  description: The object that was removed, or would be in check mode. Empty where there was none.
  returned: success
  type: dict
  contains:
    key:
      description: The object's name below its store.
      returned: success
      type: str
      sample: debian-11.iso
    url:
      description: The URL of the object.
      returned: success
      type: str
      sample: file:///srv/images/debian-11.iso
    size:
      description: Its size in bytes.
      returned: success
      type: int
      sample: 658505728
    checksum:
      description: The SHA-256 that was noted when it was sent, in hex, or an empty string.
      returned: success
      type: str
    etag:
      description: By which the store told versions of the object apart.
      returned: success
      type: str
    modified:
      description: When it was last written, in UTC, by the store's clock.
      returned: success
      type: str
      sample: "2026-11-21T06:42:10Z"
    type:
      description: The media type, where the store kept one.
      returned: success
      type: str
    metadata:
      description: What was noted with the object.
      returned: success
      type: dict
    locked:
      description: Whether the store refuses for now that it is removed.
      returned: success
      type: bool
      sample: false
diff:
  description: What changed.
  returned: in diff mode
  type: dict
  contains:
    before:
      description: The object, if there was one.
      returned: success
      type: dict
    after:
      description: That there is none.
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
  description: One sentence that says what failed, and on which URL.
  returned: failure
  type: str
"""

from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import ArgumentSpec, TaskArguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.object_options import (
    not_empty,
    object_arguments,
    object_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_store_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import storage_arguments
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import RemoveRequest


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "state": {"type": "str", "choices": ["absent"], "required": True},
            "if_match": {"type": "str"},
            # For the action plugin alone, which has acted on it before the module starts.
            "credentials_from": {"type": "str", "choices": ["auto", "controller", "target"], "default": "auto"},
        }
    )
    return own.merge(object_arguments(), storage_arguments())


def remove(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = RemoveRequest(object_spec(arguments), not_empty(arguments, "if_match"))
    require_store_sdk(request.target.store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.remove_object import remove_object

    return remove_object(request, check_mode)


def main() -> None:
    run(argument_spec(), remove)


if __name__ == "__main__":
    main()
