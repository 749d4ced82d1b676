# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach libvirt."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  libvirt:
    description:
      - How to reach libvirt. Connection settings only.
      - A task's dictionary replaces the one in C(module_defaults) as a whole; use the P(ansible.builtin.combine#filter)
        filter to change one value of it.
    type: dict
    suboptions:
      uri:
        description:
          - The connection URI.
          - The module works with the disks where it runs, so this is a URI of the same host.
          - If not given, the environment variable E(LIBVIRT_DEFAULT_URI) is used.
        type: str
        default: qemu:///system
      scratch_dir:
        description:
          - The folder on the KVM host for what a running guest overwrites while it is exported. It can grow up to the
            size of the exported disks, and it is removed when the export ends.
          - If not given, V(/var/tmp) is used.
        type: path
requirements:
  - libvirt 7.2 or newer and the Python bindings of libvirt, on the host that runs the module
"""
