# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to get into Google Cloud Storage: names and environment as in the google.cloud collection."""

from __future__ import annotations

import os
from typing import Any, Collection, Mapping

from ansible.module_utils.common.parameters import env_fallback
from ansible.module_utils.errors import AnsibleFallbackNotFound

CREDENTIALS = frozenset({"auth_kind", "service_account_file", "service_account_contents", "access_token"})
_AUTH_KINDS = ["application", "machineaccount", "serviceaccount", "accesstoken", "anonymous"]
_SAID_OF_AWS = frozenset({"endpoint_url", "ca_path"})  # by its environment


def _env_choice(variable: str) -> str:
    """As a choice must not be empty, and an environment variable is that a template had nothing for."""
    if not os.environ.get(variable):
        raise AnsibleFallbackNotFound
    return str(env_fallback(variable))


def gcs_options() -> dict[str, dict[str, Any]]:
    return {
        "auth_kind": {"type": "str", "choices": _AUTH_KINDS, "fallback": (_env_choice, ["GCP_AUTH_KIND"])},
        "service_account_file": {"type": "path", "fallback": (env_fallback, ["GCP_SERVICE_ACCOUNT_FILE"])},
        "service_account_contents": {
            "type": "jsonarg",
            "no_log": True,
            "fallback": (env_fallback, ["GCP_SERVICE_ACCOUNT_CONTENTS"]),
        },
        "access_token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["GCP_ACCESS_TOKEN"])},
        "user_project": {"type": "str"},
        "kms_key_name": {"type": "str", "no_log": False},
    }


def as_meant_for_google(url: str, settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Credentials all from the task or all from the environment, and nothing of what that says of another cloud."""
    kept = dict(settings)
    if CREDENTIALS & set(given):
        kept.update(dict.fromkeys(CREDENTIALS - set(given)))
    if url.startswith("gs://"):
        kept.update(dict.fromkeys(_SAID_OF_AWS - set(given)))
    return kept
