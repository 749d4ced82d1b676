# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's credentials for Google Cloud Storage, handed to the host that needs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

CREDENTIALS = frozenset({"auth_kind", "service_account_file", "service_account_contents", "access_token"})
# What the module, or Google's libraries below it, read where nothing is handed over.
OF_THE_HOST = frozenset(
    {
        "GCP_ACCESS_TOKEN",
        "GCP_AUTH_KIND",
        "GCP_SERVICE_ACCOUNT_CONTENTS",
        "GCP_SERVICE_ACCOUNT_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
    }
)
WANTED = (
    "Set GCP_SERVICE_ACCOUNT_FILE or GCP_ACCESS_TOKEN there, or storage.service_account_contents or access_token in "
    "the task."
)


def credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """As suboptions. A key's file is the control node's, so what it holds is handed over."""
    contents = environment.get("GCP_SERVICE_ACCOUNT_CONTENTS")
    path = environment.get("GCP_SERVICE_ACCOUNT_FILE")
    if not contents and path:
        contents = _read(path)
    if contents:
        return {"service_account_contents": contents}
    token = environment.get("GCP_ACCESS_TOKEN")
    return {"access_token": token} if token else {}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VmferryError(
            "invalid_config",
            f"GCP_SERVICE_ACCOUNT_FILE of the control node, {path}, cannot be read.",
            "Correct it, or set credentials_from to target.",
            phase="validating",
        ) from error
