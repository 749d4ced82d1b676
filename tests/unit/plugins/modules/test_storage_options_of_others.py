# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task says of a store has an effect there, or the task is refused: nobody encrypts what nobody is told to."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import storage_arguments
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import store_kind
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import ModuleRun

URLS = {
    "file": "file:///srv/exports",
    "nfs": "nfs:///mnt/nas",
    "s3": "s3://backups/vms",
    "gcs": "gs://backups/vms",
    "azure": "azblob://backups/vms",
    "http": "https://dav.example.org/vms",
}
FOREIGN: list[tuple[str, str, Any]] = [
    ("file", "sse", "AES256"),
    ("nfs", "storage_class", "STANDARD_IA"),
    ("s3", "kms_key_name", "projects/p/k"),
    ("s3", "file_mode", "0640"),
    ("gcs", "sse", "aws:kms"),
    ("gcs", "request_payer", "requester"),
    ("gcs", "access_tier", "cool"),
    ("azure", "storage_class", "COLDLINE"),
    ("azure", "user_project", "payer"),
    ("http", "endpoint_url", "https://other.example.org"),
    ("http", "object_lock_mode", "COMPLIANCE"),
]


@pytest.mark.parametrize(("kind", "option", "value"), FOREIGN)
@pytest.mark.parametrize("where", ["the store", "a further store", "a copy's source"])
def test_an_option_of_another_service_is_refused(
    modules: ModuleRun, where: str, kind: str, option: str, value: Any
) -> None:
    end = {"url": URLS[kind], "storage": {option: value}}
    if where == "the store":
        error = modules.fail("vm_export", end)
    elif where == "a further store":
        error = modules.fail("vm_export", {"copies_to": [end]})
    else:
        error = modules.fail("storage_copy", {"source": {**end, "key": "a"}})
    assert error["error"]["kind"] == "invalid_config"
    assert f"storage option {option} is none of a store of the type {kind}" in error["msg"]


@pytest.mark.parametrize("kind", ["file", "gcs", "azure", "http"])
def test_what_the_environment_says_of_another_service_is_none_of_the_tasks(
    modules: ModuleRun, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "http://127.0.0.1")
    modules.succeed("vm_export", {"url": URLS[kind]})


def test_what_is_so_anyway_promises_nothing(modules: ModuleRun) -> None:
    anyway = {"sse": "none", "anonymous": False, "validate_certs": True, "storage_class": "", "region": None}
    modules.succeed("vm_export", {"url": URLS["file"], "storage": anyway})


def test_every_storage_option_belongs_to_a_store() -> None:
    known = frozenset().union(*(store_kind(url).options for url in URLS.values()))
    assert known == set(storage_arguments().options["storage"]["options"])


def test_a_type_that_is_told_decides_whose_options_there_are(modules: ModuleRun) -> None:
    storage = {"type": "s3", "sse": "AES256"}
    modules.succeed("vm_export", {"url": "https://s3.example.org/backups", "storage": storage})
