#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: storage_info
short_description: Look at the objects in a store
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Returns what a store says of one object, or of all whose keys begin alike. No object is read.
  - An object that does not exist is told by RV(exists), and is no failure. A folder or a bucket that does not exist is
    one, so that a typing error does not look like an empty store.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.info_module
  - vmferry.migrate._attributes.actiongroup_storage
  - vmferry.migrate._storage
options:
  key:
    description:
      - The key of one object below O(url), for example V(isos/debian.iso).
    type: str
  prefix:
    description:
      - List the objects whose keys begin with this, for example V(isos/). If neither this nor O(key) is given, all
        below O(url).
    type: str
  limit:
    description:
      - How many objects are returned at most. RV(truncated) says whether there are more.
    type: int
    default: 1000
notes:
  - What was noted of a file, in the file with C(.meta.json) added to its name, is told with that file. It is listed by
    itself only where the file is gone.
seealso:
  - module: vmferry.migrate.storage_object
  - module: vmferry.migrate.export_info
"""

EXAMPLES = r"""
- name: Look whether an image is there
  vmferry.migrate.storage_info:
    storage: "{{ s3_connection }}"
    url: s3://images
    key: isos/debian.iso
  register: iso

- name: List the images of one kind
  vmferry.migrate.storage_info:
    url: file:///srv/images
    prefix: isos/
"""

RETURN = r"""
exists:
  description: Whether there is such an object, or at least one of them.
  returned: success
  type: bool
  sample: true
truncated:
  description: Whether there are more than O(limit).
  returned: success
  type: bool
  sample: false
free_space:
  description: Bytes that can still be stored, where that is a number.
  returned: success
  type: int
objects:
  description: The objects, in the order of their keys.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The object's name below O(url).
      returned: success
      type: str
      sample: isos/debian.iso
    url:
      description: The URL of the object.
      returned: success
      type: str
      sample: s3://images/isos/debian.iso
    size:
      description: Its size in bytes.
      returned: success
      type: int
      sample: 658505728
    checksum:
      description:
        - The SHA-256 that was noted when the object was sent, in hex, or an empty string. A list has those of files
          only, since a bucket tells it of one object at a time.
      returned: success
      type: str
    etag:
      description: By which the store tells versions of the object apart.
      returned: success
      type: str
    modified:
      description: When it was last written, in UTC, by the store's clock.
      returned: success
      type: str
      sample: "2026-11-21T06:42:10Z"
    type:
      description: The media type, where the store keeps one. A list does not have it.
      returned: success
      type: str
      sample: binary/octet-stream
    metadata:
      description: What was noted with the object. A list of a bucket does not have it.
      returned: success
      type: dict
      sample: {"os": "debian"}
    locked:
      description: Whether the store refuses for now that it is removed. A list does not have it.
      returned: success
      type: bool
      sample: false
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
    object_arguments,
    one_or_many,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_store_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import (
    storage_arguments,
    store_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import count
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import LookRequest


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec({"prefix": {"type": "str"}, "limit": {"type": "int", "default": 1000}})
    return own.merge(object_arguments(), storage_arguments())


def look(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    key, prefix = one_or_many(arguments)
    request = LookRequest(store_spec(arguments), key, prefix, count("limit", arguments["limit"], 1))
    require_store_sdk(request.store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.look_at_objects import look_at_objects

    return look_at_objects(request)


def main() -> None:
    run(argument_spec(), look)


if __name__ == "__main__":
    main()
