# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a provider's name to the provider: a table of functions, each with a static import inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional

from .._errors import VmferryError
from .base import Provider

if TYPE_CHECKING:
    from .._transfer.flow import Flow

Settings = Mapping[str, Any]


def _aws(settings: Settings, flow: Flow | None) -> Provider:
    from .aws.provider import AwsProvider

    return AwsProvider(settings, flow)


def _libvirt(settings: Settings, flow: Flow | None) -> Provider:
    from .libvirt.provider import LibvirtProvider

    return LibvirtProvider(settings)


def _proxmox(settings: Settings, flow: Flow | None) -> Provider:
    from .proxmox.provider import ProxmoxProvider

    return ProxmoxProvider(settings, flow)


def _vsphere(settings: Settings, flow: Flow | None) -> Provider:
    from .vsphere.provider import VsphereProvider

    return VsphereProvider(settings, flow)


_OPENERS: Mapping[str, Callable[[Settings, Optional[Flow]], Provider]] = {
    "aws": _aws,
    "libvirt": _libvirt,
    "proxmox": _proxmox,
    "vsphere": _vsphere,
}
_FILES = "image"  # whoever can work with files opens it itself


def open_provider(name: str, settings: Settings, flow: Flow | None = None) -> Provider:
    """`settings` are the task's connection settings of that provider. Nothing is connected yet. `flow`: of the
    job that works with it.

    Raises `unsupported` for a name that is not known, and for VMs that are files; `invalid_config` for a setting that
    cannot be meant.
    """
    if name == _FILES:
        raise VmferryError(
            "unsupported",
            "The VMs of the provider image are files, without a hypervisor that could do this.",
            "Import the VM to a hypervisor first, with vmferry.migrate.vm_import.",
        )
    opener = _OPENERS.get(name)
    if opener is None:
        raise VmferryError("unsupported", f"There is no provider {name!r}.", f"Known are: {', '.join(_OPENERS)}.")
    return opener(settings, flow)
