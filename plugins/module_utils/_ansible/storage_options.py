# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where exports live, and how to get in."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.common.parameters import env_fallback

from .._errors import VmferryError
from .._operations.jobs.requests import StoreSpec
from .._stores.open import store_kind
from .argspec import ArgumentSpec, TaskArguments, invalid, without_unset
from .aws_options import credential_options, one_set_of_credentials
from .azure_options import as_meant_for_azure, azure_options
from .dav_options import as_meant_for_http, dav_options
from .gcs_options import as_meant_for_google, gcs_options
from .values import duration, file_mode, optional_duration, size


def storage_arguments(*, required: bool = True) -> ArgumentSpec:
    return ArgumentSpec(
        {
            "url": {"type": "str", **({"required": True} if required else {})},
            "storage": {
                "type": "dict",
                "apply_defaults": True,  # or the environment is not asked when the whole dict is left out
                "options": _storage_options(),
            },
        }
    )


def _storage_options() -> dict[str, dict[str, Any]]:
    return {
        **_any_options(),
        **_s3_options(),
        **azure_options(),
        **gcs_options(),
        **dav_options(),
        **_file_options(),
    }


def _any_options() -> dict[str, dict[str, Any]]:
    return {"allowed_hosts": {"type": "list", "elements": "str", "fallback": (env_fallback, ["VMFERRY_ALLOWED_HOSTS"])}}


def _s3_options() -> dict[str, dict[str, Any]]:
    return {
        "endpoint_url": {"type": "str", "fallback": (env_fallback, ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])},
        **credential_options(),
        "anonymous": {"type": "bool", "default": False},
        "addressing_style": {"type": "str", "choices": ["auto", "path", "virtual"], "default": "auto"},
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path", "fallback": (env_fallback, ["AWS_CA_BUNDLE"])},
        "connect_timeout": {"type": "str", "default": "60s"},
        "sse": {"type": "str", "choices": ["none", "AES256", "aws:kms"], "default": "none"},
        "sse_kms_key_id": {"type": "str", "no_log": False},
        "sse_customer_key": {"type": "str", "no_log": True},
        "storage_class": {"type": "str"},
        "request_payer": {"type": "str", "choices": ["requester"]},
        "use_accelerate_endpoint": {"type": "bool", "default": False},
        "object_lock_mode": {"type": "str", "choices": ["GOVERNANCE", "COMPLIANCE"]},
        "object_lock_retain_until": {"type": "str"},
        "object_lock_retention": {"type": "str"},
        "object_lock_legal_hold": {"type": "bool", "default": False},
    }


def _file_options() -> dict[str, dict[str, Any]]:
    return {
        "file_mode": {"type": "raw", "default": "0600"},
        "file_owner": {"type": "str"},
        "file_group": {"type": "str"},
        "mount": {"type": "path"},
        "buffer_size": {"type": "str", "default": "32MiB"},
    }


def optional_store(arguments: TaskArguments) -> StoreSpec | None:
    return store_spec(arguments) if arguments["url"] else None


def store_spec(arguments: TaskArguments) -> StoreSpec:
    return store_at(arguments["url"], arguments)


def store_at(url: str, arguments: TaskArguments) -> StoreSpec:
    """Whether the settings go together is the store's to say."""
    _insist_on_own_options(url, arguments)
    settings = one_set_of_credentials(arguments["storage"], arguments.given_suboptions("storage"))
    settings = as_meant_for_google(url, settings, arguments.given_suboptions("storage"))
    settings = as_meant_for_azure(url, settings, arguments.given_suboptions("storage"))
    settings = as_meant_for_http(url, settings, arguments.given_suboptions("storage"))
    if settings["allowed_hosts"] == [""]:  # of an environment variable that is there and empty
        settings["allowed_hosts"] = None
    settings["connect_timeout"] = duration("storage.connect_timeout", settings["connect_timeout"])
    settings["object_lock_retention"] = optional_duration(
        "storage.object_lock_retention", settings["object_lock_retention"]
    )
    settings["mode"] = file_mode("storage.file_mode", settings.pop("file_mode"))
    settings["owner"], settings["group"] = settings.pop("file_owner"), settings.pop("file_group")
    settings["buffer_size"] = size("storage.buffer_size", settings["buffer_size"])
    return StoreSpec(url, without_unset(settings))


def _insist_on_own_options(url: str, arguments: TaskArguments) -> None:
    """What the task gives is meant, so nothing of it may be without effect. What the environment says may be of others,
    and what is a default anyway promises nothing."""
    values = arguments["storage"]
    try:
        kind = store_kind(url, values["type"])
    except VmferryError:  # which is told when the store is opened
        return
    defaults = {name: option.get("default") for name, option in _storage_options().items()}
    for name in sorted(arguments.given_suboptions("storage") - kind.options):
        if values[name] not in ("", defaults[name]):
            raise invalid(
                f"The storage option {name} is none of a store of the type {kind.name}, which {url} is.",
                "Leave it out, or correct the URL. Variables of the environment may name other services.",
            )
