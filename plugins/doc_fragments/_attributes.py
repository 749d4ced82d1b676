# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module says about itself: how it behaves under check mode, diff mode, async, and in which groups it is."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return what would happen, without changing the system.
  diff_mode:
    description: Returns what changed, or would change in C(check_mode), when in diff mode.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second run changes nothing.
  async:
    description: Supports being used with the C(async) keyword.
  platform:
    description: The operating systems of the hosts on which the module can run.
    support: full
    platforms: posix
"""

    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module never changes anything.
  diff_mode:
    support: N/A
    details:
      - This module never changes anything.
  idempotent:
    support: full
    details:
      - This module never changes anything.
  async:
    support: full
"""

    ACTIONGROUP_ALL = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/vmferry.migrate.all) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - vmferry.migrate.all
"""

    ACTIONGROUP_LIBVIRT = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/vmferry.migrate.all) or C(group/vmferry.migrate.libvirt) in C(module_defaults) to set defaults for
      this module.
    support: full
    membership:
      - vmferry.migrate.all
      - vmferry.migrate.libvirt
"""

    ACTIONGROUP_STORAGE = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/vmferry.migrate.all) or C(group/vmferry.migrate.storage) in C(module_defaults) to set defaults for
      this module.
    support: full
    membership:
      - vmferry.migrate.all
      - vmferry.migrate.storage
"""

    # For modules that take VMs of any provider, also those that are files.
    ACTIONGROUP_VMS = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/vmferry.migrate.all), C(group/vmferry.migrate.image) or C(group/vmferry.migrate.libvirt) in
      C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - vmferry.migrate.all
      - vmferry.migrate.image
      - vmferry.migrate.libvirt
"""

    ACTIONGROUP_VMS_STORAGE = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/vmferry.migrate.all), C(group/vmferry.migrate.image), C(group/vmferry.migrate.libvirt) or
      C(group/vmferry.migrate.storage) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - vmferry.migrate.all
      - vmferry.migrate.image
      - vmferry.migrate.libvirt
      - vmferry.migrate.storage
"""

    # For modules with a VM on one end and a store on the other.
    ACTIONGROUP_LIBVIRT_STORAGE = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/vmferry.migrate.all), C(group/vmferry.migrate.libvirt) or C(group/vmferry.migrate.storage) in
      C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - vmferry.migrate.all
      - vmferry.migrate.libvirt
      - vmferry.migrate.storage
"""

    ACTIONGROUP_HYPERVISORS = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/vmferry.migrate.all), C(group/vmferry.migrate.aws), C(group/vmferry.migrate.libvirt),
      C(group/vmferry.migrate.proxmox) or C(group/vmferry.migrate.vsphere) in C(module_defaults) to set defaults for
      this module.
    support: full
    membership:
      - vmferry.migrate.all
      - vmferry.migrate.aws
      - vmferry.migrate.libvirt
      - vmferry.migrate.proxmox
      - vmferry.migrate.vsphere
"""

    ACTIONGROUP_ANY = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/vmferry.migrate.all), C(group/vmferry.migrate.aws), C(group/vmferry.migrate.image),
      C(group/vmferry.migrate.libvirt), C(group/vmferry.migrate.proxmox) or C(group/vmferry.migrate.vsphere) in
      C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - vmferry.migrate.all
      - vmferry.migrate.aws
      - vmferry.migrate.image
      - vmferry.migrate.libvirt
      - vmferry.migrate.proxmox
      - vmferry.migrate.vsphere
"""

    ACTIONGROUP_ANY_STORAGE = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/vmferry.migrate.all), C(group/vmferry.migrate.aws), C(group/vmferry.migrate.image),
      C(group/vmferry.migrate.libvirt), C(group/vmferry.migrate.proxmox), C(group/vmferry.migrate.storage) or
      C(group/vmferry.migrate.vsphere) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - vmferry.migrate.all
      - vmferry.migrate.aws
      - vmferry.migrate.image
      - vmferry.migrate.libvirt
      - vmferry.migrate.proxmox
      - vmferry.migrate.storage
      - vmferry.migrate.vsphere
"""

    ACTIONGROUP_HYPERVISORS_STORAGE = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/vmferry.migrate.all), C(group/vmferry.migrate.aws), C(group/vmferry.migrate.libvirt),
      C(group/vmferry.migrate.proxmox), C(group/vmferry.migrate.storage) or C(group/vmferry.migrate.vsphere) in
      C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - vmferry.migrate.all
      - vmferry.migrate.aws
      - vmferry.migrate.libvirt
      - vmferry.migrate.proxmox
      - vmferry.migrate.storage
      - vmferry.migrate.vsphere
"""
