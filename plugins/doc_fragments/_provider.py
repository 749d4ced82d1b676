# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option that says which provider a task means."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  provider:
    description:
      - The hypervisor or cloud that has the VM.
      - May be left out when the task has connection settings for exactly one provider, from its own arguments or from
        C(module_defaults). Settings for none, or for more than one, are refused.
    type: str
    choices:
      - libvirt
"""

    OR_FILES = r"""
options:
  provider:
    description:
      - The hypervisor or cloud that has the VM, or V(image) for a VM that is files, such as an OVA or disk images.
      - May be left out when the task has connection settings for exactly one provider, from its own arguments or from
        C(module_defaults). Settings for none, or for more than one, are refused.
    type: str
    choices:
      - libvirt
      - image
"""

    HYPERVISORS = r"""
options:
  provider:
    description:
      - The hypervisor or cloud that has the VM.
      - May be left out when the task has connection settings for exactly one provider, from its own arguments or from
        C(module_defaults). Settings for none, or for more than one, are refused.
    type: str
    choices:
      - aws
      - libvirt
      - proxmox
      - vsphere
"""

    ANY = r"""
options:
  provider:
    description:
      - The hypervisor or cloud that has the VM, or V(image) for a VM that is files, such as an OVA or disk images.
      - May be left out when the task has connection settings for exactly one provider, from its own arguments or from
        C(module_defaults). Settings for none, or for more than one, are refused.
    type: str
    choices:
      - aws
      - libvirt
      - proxmox
      - vsphere
      - image
"""
