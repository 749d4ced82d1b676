# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python packages that only some tasks need: asked for before the first step, by the name they install under."""

from __future__ import annotations

import sys
from importlib import import_module

from ansible.module_utils.basic import missing_required_lib

from .._errors import VmferryError
from .._operations.jobs.requests import ProviderSpec, StoreSpec
from .azure_options import is_azure_url
from .dav_options import speaks_http

OLDEST_BOTO3 = (1, 26)  # of Debian 12; the first to know the checksums of parts is a little older
OLDEST_AZURE = (12, 14)  # azure-storage-blob of Debian 12
OLDEST_GOOGLE_AUTH = (2, 0)  # the first for Python 3 alone
OLDEST_PROXMOXER = (2, 0)  # the first with tokens and a timeout for each call
OLDEST_PYVMOMI = (8, 0, 1)  # the first that is typed, and that knows all that is asked of vSphere 8
_OF_GCS = {"google.auth": "google-auth", "requests": "requests", "google_crc32c": "google-crc32c"}


def require_provider_sdk(provider: ProviderSpec) -> None:
    if provider.name == "libvirt":
        try:
            import libvirt  # noqa: F401
        except ImportError as error:
            raise _missing("libvirt-python", "python3-libvirt", error) from error
    if provider.name == "aws":
        _require_boto3("the provider aws")
    if provider.name == "proxmox":
        _require_proxmoxer()
    if provider.name == "vsphere":
        _require_pyvmomi()
    if provider.name == "image":
        require_store_sdk(StoreSpec(provider.settings["url"], provider.settings["storage"]))


def require_store_sdk(store: StoreSpec) -> None:
    if store.url.startswith("s3://") or store.settings.get("type") == "s3":
        _require_boto3(store.url)
    elif speaks_http(store.url, store.settings):
        _require_urllib3()
    elif store.url.startswith("gs://"):
        _require_gcs_sdk(store)
    elif is_azure_url(store.url, store.settings.get("type")):
        _require_azure_sdk(store)


def require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise _missing("cryptography", "python3-cryptography", error) from error


def require_encryption() -> None:
    require_cryptography()
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        raise _missing("numpy", "python3-numpy", error) from error


def _require_proxmoxer() -> None:
    """Without requests it would end the whole program."""
    for package in ("requests", "proxmoxer"):
        try:
            import_module(package)
        except ImportError as error:
            raise VmferryError(
                "invalid_config",
                f"{missing_required_lib(package)} ({error})",
                f"Install proxmoxer {'.'.join(map(str, OLDEST_PROXMOXER))} or newer and requests with pip for "
                f"{sys.executable}; distributions package older ones.",
                phase="validating",
            ) from error
    from importlib import metadata

    _insist_on("proxmoxer", metadata.version("proxmoxer"), OLDEST_PROXMOXER, "the provider proxmox")


def _require_pyvmomi() -> None:
    try:
        import pyVmomi  # noqa: F401
    except Exception as error:  # pyVmomi raises a bare one where Python is too old for it
        wanted = ".".join(map(str, OLDEST_PYVMOMI))
        raise VmferryError(
            "invalid_config",
            f"{missing_required_lib('pyvmomi')} ({error})",
            f"Install pyvmomi {wanted} or newer with pip for {sys.executable}; distributions package older ones.",
            phase="validating",
        ) from error
    from importlib import metadata

    found = metadata.version("pyvmomi")
    if _version(found) < OLDEST_PYVMOMI:
        raise VmferryError(
            "invalid_config",
            f"pyvmomi {found} is too old; at least {'.'.join(map(str, OLDEST_PYVMOMI))} is needed.",
            f"Install a newer pyvmomi with pip for {sys.executable}.",
            phase="validating",
        )


def _require_urllib3() -> None:
    try:
        import urllib3  # noqa: F401
    except ImportError as error:
        raise _missing("urllib3", "python3-urllib3", error) from error


def _require_boto3(needed_for: str) -> None:
    try:
        import boto3
    except ImportError as error:
        raise _missing("boto3", "python3-boto3", error) from error
    _insist_on("boto3", boto3.__version__, OLDEST_BOTO3, needed_for)


def _require_gcs_sdk(store: StoreSpec) -> None:
    for module, package in _OF_GCS.items():
        try:
            import_module(module)
        except ImportError as error:
            raise _missing(package, f"python3-{package}", error) from error
    _insist_on("google-auth", import_module("google.auth").__version__, OLDEST_GOOGLE_AUTH, store.url)
    if import_module("google_crc32c").implementation != "c":
        raise VmferryError(
            "invalid_config",
            f"google-crc32c is here without its C library, and far too slow for {store.url}.",
            f"Install google-crc32c from a wheel with pip for {sys.executable}.",
            phase="validating",
        )


def _require_azure_sdk(store: StoreSpec) -> None:
    try:
        blob = import_module("azure.storage.blob")
    except ImportError as error:
        raise _missing("azure-storage-blob", "python3-azure-storage", error) from error
    _insist_on("azure-storage-blob", blob.__version__, OLDEST_AZURE, store.url)
    if not any(store.settings.get(name) for name in ("account_key", "sas_token", "connection_string")):
        try:
            import azure.identity  # noqa: F401
        except ImportError as error:
            raise _missing("azure-identity", "python3-azure", error) from error


def _insist_on(package: str, version: str, oldest: tuple[int, ...], needed_for: str) -> None:
    if _version(version) < oldest:
        wanted = ".".join(map(str, oldest))
        raise VmferryError(
            "invalid_config",
            f"{package} {version} is too old for {needed_for}; at least {wanted} is needed.",
            f"Install a newer {package} with pip for {sys.executable}.",
            phase="validating",
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())


def _missing(library: str, system_package: str, error: ImportError) -> VmferryError:
    return VmferryError(
        "invalid_config",
        f"{missing_required_lib(library)} ({error})",
        f"Install {system_package} with the system's package manager, or {library} with pip for {sys.executable}.",
        phase="validating",
    )
