# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python packages that only some tasks need: asked for before the first step, by the name they install under."""

from __future__ import annotations

import sys

from ansible.module_utils.basic import missing_required_lib

from .._errors import VmferryError
from .._operations.requests import ProviderSpec, StoreSpec

OLDEST_BOTO3 = (1, 26)  # of Debian 12; the first to know the checksums of parts is a little older


def require_provider_sdk(provider: ProviderSpec) -> None:
    if provider.name == "libvirt":
        try:
            import libvirt  # noqa: F401
        except ImportError as error:
            raise _missing("libvirt-python", "python3-libvirt", error) from error


def require_store_sdk(store: StoreSpec) -> None:
    if store.url.startswith("s3://"):
        try:
            import boto3
        except ImportError as error:
            raise _missing("boto3", "python3-boto3", error) from error
        if _version(boto3.__version__) < OLDEST_BOTO3:
            raise VmferryError(
                "invalid_config",
                f"boto3 {boto3.__version__} is too old for {store.url}; at least {'.'.join(map(str, OLDEST_BOTO3))} "
                "is needed.",
                f"Install a newer boto3 with pip for {sys.executable}.",
                phase="validating",
            )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _missing(library: str, system_package: str, error: ImportError) -> VmferryError:
    return VmferryError(
        "invalid_config",
        f"{missing_required_lib(library)} ({error})",
        f"Install {system_package} with the system's package manager, or {library} with pip for {sys.executable}.",
        phase="validating",
    )
