# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which provider a task means, and how to reach it."""

from __future__ import annotations

from typing import Any, Collection

from ansible.module_utils.common.parameters import env_fallback

from .._errors import VmferryError
from .._operations.jobs.requests import ProviderSpec
from .argspec import ArgumentSpec, TaskArguments, invalid, without_unset
from .aws_options import aws_options, aws_settings
from .proxmox_options import proxmox_options, proxmox_settings
from .storage_options import storage_arguments, store_spec
from .vsphere_options import vsphere_options, vsphere_settings

PROVIDERS = ("aws", "libvirt", "proxmox", "vsphere")
FILES = "image"  # whose VMs lie in a store


def provider_arguments() -> ArgumentSpec:
    """Of a module that works with libvirt alone so far."""
    return ArgumentSpec({"provider": {"type": "str", "choices": ["libvirt"]}, **_libvirt_options()})


def provider_or_files_arguments() -> ArgumentSpec:
    """Of a module that takes VMs that are files, too."""
    choices = {"type": "str", "choices": ["libvirt", FILES]}
    return ArgumentSpec({"provider": choices, FILES: _files_option(), **_libvirt_options()})


def hypervisor_arguments() -> ArgumentSpec:
    """Of a module that works with every hypervisor."""
    choices = {"type": "str", "choices": list(PROVIDERS)}
    return ArgumentSpec({"provider": choices, **_hypervisor_options()})


def any_provider_arguments() -> ArgumentSpec:
    """Of a module that works with every hypervisor, and takes VMs that are files, too."""
    choices = {"type": "str", "choices": [*PROVIDERS, FILES]}
    return ArgumentSpec({"provider": choices, FILES: _files_option(), **_hypervisor_options()})


def _files_option() -> dict[str, Any]:
    return {
        "type": "dict",
        "apply_defaults": True,  # or the environment is not asked for the credentials of its store
        "options": storage_arguments(required=False).options,
    }


def provider_ends_arguments() -> ArgumentSpec:
    """Of a module with a provider at each end."""
    end = {"type": "dict", "required": True, "options": any_provider_arguments().options}
    return ArgumentSpec({"source": end, "destination": dict(end)})


def _hypervisor_options() -> dict[str, dict[str, Any]]:
    return {**aws_options(), **_libvirt_options(), **proxmox_options(), **vsphere_options()}


def _libvirt_options() -> dict[str, dict[str, Any]]:
    return {
        "libvirt": {
            "type": "dict",
            "apply_defaults": True,  # or the environment is not asked when the whole dict is left out
            "options": {
                "uri": {
                    "type": "str",
                    "default": "qemu:///system",
                    "fallback": (env_fallback, ["LIBVIRT_DEFAULT_URI"]),
                },
                "scratch_dir": {"type": "path"},
            },
        },
    }


def provider_spec(arguments: TaskArguments) -> ProviderSpec:
    offered = _offered(arguments)
    name = chosen_provider(arguments["provider"], [name for name in offered if arguments.given(name)], offered)
    if name == FILES:
        return _files(arguments.below(FILES))
    if name == "aws":
        return ProviderSpec(name, aws_settings(arguments[name], arguments.given_suboptions(name)))
    if name == "proxmox":
        return ProviderSpec(name, proxmox_settings(arguments[name], arguments.given_suboptions(name)))
    if name == "vsphere":
        return ProviderSpec(name, vsphere_settings(arguments[name], arguments.given_suboptions(name)))
    return ProviderSpec(name, without_unset(arguments[name]))


def provider_end(arguments: TaskArguments, option: str) -> ProviderSpec:
    """Of `source` or `destination`, which what is wrong begins with."""
    try:
        return provider_spec(arguments.below(option))
    except VmferryError as error:
        raise invalid(f"{option}: {error.message}", error.hint) from error


def optional_provider(arguments: TaskArguments) -> ProviderSpec | None:
    named = arguments["provider"] or any(map(arguments.given, _offered(arguments)))
    return provider_spec(arguments) if named else None


def _offered(arguments: TaskArguments) -> list[str]:
    return [name for name in (*PROVIDERS, FILES) if name in arguments.values]


def _files(where: TaskArguments) -> ProviderSpec:
    if not where["url"]:
        raise invalid(
            "The provider is image, and image.url does not say where the files of the VMs are.",
            "Write for example file:///srv/images or s3://bucket/images.",
        )
    store = store_spec(where)
    return ProviderSpec(FILES, {"url": store.url, "storage": store.settings})


def chosen_provider(named: str | None, described: Collection[str], offered: Collection[str] = PROVIDERS) -> str:
    """`described` are the providers that the task has settings for. Exactly one of them needs no naming."""
    if named:
        return named
    if len(described) == 1:
        return next(iter(described))
    if described:
        raise invalid(
            f"The task has connection settings for {' and '.join(sorted(described))} and does not say which it means.",
            "Set provider to the one that has the VM.",
        )
    raise invalid(
        "The task names no provider and has connection settings for none.",
        f"Set provider to one of: {', '.join(offered)}.",
    )
