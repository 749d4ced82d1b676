# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where VMs are that are files."""

from __future__ import annotations

from ansible_collections.vmferry.migrate.plugins.doc_fragments._two_stores import settings_below


class ModuleDocFragment:
    # Annotated, since ansible-test takes every plain assignment here for a literal.
    DOCUMENTATION: str = f"""
options:
  image:
    description:
      - Where VMs are that are files. An OVA, an OVF with its files beside it, or a disk image is a VM; so is a folder
        directly below O(image.url) with the images of its disks.
      - A task's dictionary replaces the one in C(module_defaults) as a whole; use the P(ansible.builtin.combine#filter)
        filter to change one value of it.
      - See U(https://github.com/vmferry/vmferry.migrate/blob/main/docs/image_provider.md).
    type: dict
    suboptions:
      url:
        description:
          - The folder or the store with the files, by any URL that a store can have, such as V(file:///srv/images) or
            V(s3://bucket/images). O(provider=image) needs it.
        type: str
{settings_below("image")}
"""
