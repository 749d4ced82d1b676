# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module's `main` as Ansible would, up to the operation: what it was asked for is what the tests look at."""

from __future__ import annotations

import json
import sys
import types
from importlib import metadata
from typing import Any, Callable, Mapping

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.vmferry.migrate.plugins.modules import (
    disk_snapshot,
    disk_snapshot_info,
    export_cleanup,
    export_info,
    export_verify,
    job,
    job_info,
    storage_copy,
    storage_download,
    storage_info,
    storage_object,
    storage_upload,
    vm,
    vm_export,
    vm_import,
    vm_info,
    vm_migrate,
)

MODULES = {
    "disk_snapshot": disk_snapshot,
    "disk_snapshot_info": disk_snapshot_info,
    "export_cleanup": export_cleanup,
    "export_info": export_info,
    "export_verify": export_verify,
    "job": job,
    "job_info": job_info,
    "storage_copy": storage_copy,
    "storage_download": storage_download,
    "storage_info": storage_info,
    "storage_object": storage_object,
    "storage_upload": storage_upload,
    "vm": vm,
    "vm_export": vm_export,
    "vm_import": vm_import,
    "vm_info": vm_info,
    "vm_migrate": vm_migrate,
}
OPERATIONS = {
    "disk_snapshot": "manage_snapshots",
    "disk_snapshot_info": "list_snapshots",
    "export_cleanup": "clean_up_exports",
    "export_info": "list_exports",
    "export_verify": "verify_export",
    "job": "end_job",
    "job_info": "list_jobs",
    "storage_copy": "copy_objects",
    "storage_download": "download_object",
    "storage_info": "look_at_objects",
    "storage_object": "remove_object",
    "storage_upload": "upload_files",
    "vm": "bring_vm",
    "vm_export": "export_vm",
    "vm_import": "import_vm",
    "vm_info": "describe_vms",
    "vm_migrate": "migrate_vm",
}
# What a task of each module cannot do without.
LEAST: dict[str, dict[str, Any]] = {
    "disk_snapshot": {"provider": "libvirt", "vm": "web01"},
    "disk_snapshot_info": {"provider": "libvirt", "vm": "web01"},
    "export_cleanup": {"url": "file:///srv/exports", "orphans": True, "provider": "libvirt"},
    "export_info": {"url": "file:///srv/exports"},
    "export_verify": {"provider": "libvirt", "url": "file:///srv/exports", "level": "boot"},
    "job": {"job": "6f1d2c0e43a5", "state": "finished", "url": "file:///srv/exports"},
    "job_info": {"url": "file:///srv/exports"},
    "storage_copy": {
        "source": {"url": "file:///srv/exports", "key": "a.img"},
        "destination": {"url": "file:///srv/other"},
    },
    "storage_download": {"url": "file:///srv/exports/a.img", "dest": "/srv/a.img"},
    "storage_info": {"url": "file:///srv/exports"},
    "storage_object": {"url": "file:///srv/exports/old.img", "state": "absent"},
    "storage_upload": {"url": "file:///srv/exports", "src": "/srv/a.img"},
    "vm": {"provider": "libvirt", "vm": "web01", "state": "powered_on"},
    "vm_export": {"provider": "libvirt", "url": "file:///srv/exports", "vm": "web01"},
    "vm_import": {"provider": "libvirt", "url": "file:///srv/exports", "name": "web02"},
    "vm_info": {"provider": "libvirt"},
    "vm_migrate": {"source": {"provider": "libvirt"}, "destination": {"provider": "libvirt"}, "vm": "web01"},
}
ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_SECRET",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_TENANT",
    "AZURE_TENANT_ID",
    "GCP_ACCESS_TOKEN",
    "GCP_AUTH_KIND",
    "GCP_SERVICE_ACCOUNT_CONTENTS",
    "GCP_SERVICE_ACCOUNT_FILE",
    "GOVC_INSECURE",
    "GOVC_PASSWORD",
    "GOVC_TLS_CA_CERTS",
    "GOVC_URL",
    "GOVC_USERNAME",
    "LIBVIRT_DEFAULT_URI",
    "PROXMOX_CA_PATH",
    "PROXMOX_HOST",
    "PROXMOX_PASSWORD",
    "PROXMOX_PORT",
    "PROXMOX_TOKEN_ID",
    "PROXMOX_TOKEN_SECRET",
    "PROXMOX_USER",
    "PROXMOX_VALIDATE_CERTS",
    "VMFERRY_ALLOWED_HOSTS",
    "VMFERRY_BANDWIDTH_LIMIT",
    "VMFERRY_CLEANUP_MAX_AGE",
    "VMFERRY_CLEANUP_MAX_COUNT",
    "VMFERRY_STATE_DIR",
    "VMFERRY_VSPHERE_THUMBPRINT",
    "VMWARE_HOST",
    "VMWARE_PASSWORD",
    "VMWARE_PORT",
    "VMWARE_PROXY_HOST",
    "VMWARE_PROXY_PORT",
    "VMWARE_USER",
    "VMWARE_VALIDATE_CERTS",
)
ROOMS = "ansible_collections.vmferry.migrate.plugins.module_utils"

Arguments = Mapping[str, Any]


class ModuleRun:
    """`calls` are the arguments of the operation, which returns `result` or does what `act` does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.result: dict[str, Any] = {"changed": False}
        self.act: Callable[[], None] = lambda: None
        # Tests of plugins load what makes Ansible show warnings at once instead of returning them.
        monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)
        for variable in ENVIRONMENT:
            monkeypatch.delenv(variable, raising=False)  # the tester's own
        for name in OPERATIONS.values():
            self.replace(f"{ROOMS}._operations.{name}", **{name: self._operation})
        self.replace("libvirt")
        self.replace("pyVmomi")
        self.replace("proxmoxer")
        self.packages = {"pyvmomi": "9.1.1.0", "proxmoxer": "2.3.0"}
        real = metadata.version
        monkeypatch.setattr(
            "importlib.metadata.version", lambda name: self.packages[name] if name in self.packages else real(name)
        )
        self.replace("boto3", __version__="1.36.0")
        self.replace("google.auth", __version__="2.40.0")
        self.replace("requests")
        self.replace("urllib3")
        self.replace("google_crc32c", implementation="c")
        self.replace("azure.storage.blob", __version__="12.31.0")
        for package in ("azure", "azure.storage", "azure.identity"):
            self.replace(package)

    def replace(self, name: str, **members: Any) -> None:
        stand_in = types.ModuleType(name)
        vars(stand_in).update(members)
        self._monkeypatch.setitem(sys.modules, name, stand_in)

    def without_package(self, name: str) -> None:
        self._monkeypatch.setitem(sys.modules, name, None)  # as the import system marks what is not there

    def _operation(self, *values: Any, **named: Any) -> dict[str, Any]:
        self.calls.append((values, named))
        self.act()
        return dict(self.result)

    def run(self, module: str, arguments: Arguments, **ansible: bool) -> dict[str, Any]:
        """The JSON that Ansible would read. `ansible` are check mode and diff mode."""
        internal = {f"_ansible_{name}": value for name, value in ansible.items()}
        with patch_module_args({**arguments, **internal}), pytest.raises(SystemExit) as ended:
            MODULES[module].main()
        printed = self._capfd.readouterr().out
        outcome: dict[str, Any] = json.loads(printed)
        assert bool(ended.value.code) == bool(outcome.get("failed"))
        return outcome

    def least(self, module: str, arguments: Arguments) -> dict[str, Any]:
        """An option set to None is left out."""
        return _merged(LEAST[module], arguments)

    def succeed(self, module: str, arguments: Arguments, **ansible: bool) -> dict[str, Any]:
        outcome = self.run(module, self.least(module, arguments), **ansible)
        assert not outcome.get("failed"), outcome
        return outcome

    def fail(self, module: str, arguments: Arguments, **ansible: bool) -> dict[str, Any]:
        outcome = self.run(module, self.least(module, arguments), **ansible)
        assert outcome.get("failed"), outcome
        return outcome

    def request(self, module: str, arguments: Arguments) -> Any:
        """What the operation got as its first argument."""
        self.succeed(module, arguments)
        return self.calls[-1][0][0]


def _merged(least: Arguments, asked: Arguments) -> dict[str, Any]:
    """Of dicts that both have, option by option."""
    whole = {
        name: _merged(least[name], value) if isinstance(value, dict) and isinstance(least.get(name), dict) else value
        for name, value in {**least, **asked}.items()
    }
    return {name: value for name, value in whole.items() if value is not None}
