# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider at each end of a migration, and how to reach it: below the option that names that end."""

from __future__ import annotations

import re

from ansible_collections.vmferry.migrate.plugins.doc_fragments._aws import ModuleDocFragment as Aws
from ansible_collections.vmferry.migrate.plugins.doc_fragments._image import ModuleDocFragment as Image
from ansible_collections.vmferry.migrate.plugins.doc_fragments._libvirt import ModuleDocFragment as Libvirt
from ansible_collections.vmferry.migrate.plugins.doc_fragments._provider import ModuleDocFragment as Provider
from ansible_collections.vmferry.migrate.plugins.doc_fragments._proxmox import ModuleDocFragment as Proxmox
from ansible_collections.vmferry.migrate.plugins.doc_fragments._vsphere import ModuleDocFragment as Vsphere

_OPTIONS = re.compile(r"^options:\n((?:(?: .*)?\n)+)", re.MULTILINE)
_REQUIREMENTS = re.compile(r"^requirements:\n((?:(?: .*)?\n)+)", re.MULTILINE)


def provider_below(option: str) -> str:
    """The documentation of `provider` and of every provider's settings, as suboptions of `option`."""
    parts = (Provider.ANY, *(one.DOCUMENTATION for one in (Aws, Libvirt, Proxmox, Vsphere, Image)))
    text = "".join(_OPTIONS.findall(part)[0] for part in parts)
    text = re.sub(r"\bO\((provider|aws|libvirt|proxmox|vsphere|image)\b", rf"O({option}.\1", text)
    return re.sub(r"(?m)^(?=.)", "    ", text)


def requirements(*parts: str) -> str:
    """Of all of them."""
    return "requirements:\n" + "".join(found for part in parts for found in _REQUIREMENTS.findall(part))


class ModuleDocFragment:
    # Annotated, since ansible-test takes every plain assignment here for a literal.
    DOCUMENTATION: str = f"""
options:
  source:
    description:
      - The provider that has the VM, and how to reach it.
    type: dict
    required: true
    suboptions:
{provider_below("source")}
  destination:
    description:
      - The provider that the VM goes to, and how to reach it. It may be that of the source.
    type: dict
    required: true
    suboptions:
{provider_below("destination")}
{requirements(*(one.DOCUMENTATION for one in (Aws, Libvirt, Proxmox, Vsphere)))}
"""
