# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No option is decoration: each changes what the operation is asked for."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from tempfile import NamedTemporaryFile
from typing import Any, Iterator, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import PowerState
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import store_kind
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import LEAST, MODULES, ModuleRun

DAY = 86400.0
MIB = 1024 * 1024

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC = _KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
PEM_FILE = NamedTemporaryFile("w", suffix=".pem")  # noqa: SIM115  # as long as the tests run; nobody else's to read
PEM_FILE.write(PEM)
PEM_FILE.flush()

TRUST: list[tuple[str, Any, str, Any]] = [("trusted_keys", ["AB" * 32], "seals.trusts.0.keys", {"ab" * 32})]
WORD = "correct horse battery"
WORD_FILE = NamedTemporaryFile("w", suffix=".word")  # noqa: SIM115  # as long as the tests run; nobody else's to read
WORD_FILE.write(f"{WORD}\n")
WORD_FILE.flush()
ENCRYPTION: list[tuple[str, Any, str, Any]] = [
    ("encryption.passphrase", WORD, "seals.keyring.passphrase", WORD.encode()),
    ("encryption.passphrase_file", WORD_FILE.name, "seals.keyring.passphrase", WORD.encode()),
    ("encryption.passphrase_command", ["printf", "%s", WORD], "seals.keyring.passphrase", WORD.encode()),
]
OPENING = [*ENCRYPTION, ("encryption.passphrase", WORD, "seals.keyring.strict", True)]
PROVED = ("encryption.passphrase", WORD, "seals.journal_key.__self__.passphrase", WORD.encode())
SEALING = [*ENCRYPTION, ("encryption.passphrase", WORD, "seals.keyring.strict", False)]
SIGNING: list[tuple[str, Any, str, Any]] = [
    ("signing.key", PEM, "seals.signers.0.public_key", PUBLIC),
    ("signing.key_file", PEM_FILE.name, "seals.signers.0.public_key", PUBLIC),
    ("signing.key", PEM, "seals.journal_key.__self__.public_key", PUBLIC),
    ("signing.key_command", ["printf", "%s", PEM], "seals.signers.0.public_key", PUBLIC),
    *TRUST,
]
PROVIDER: list[tuple[str, Any, str, Any]] = [
    ("provider", "libvirt", "provider.name", "libvirt"),
    ("libvirt.uri", "qemu:///session", "provider.settings.uri", "qemu:///session"),
    ("libvirt.scratch_dir", "/srv/scratch", "provider.settings.scratch_dir", "/srv/scratch"),
]
VSPHERE: list[tuple[str, Any, str, Any]] = [
    ("provider", "vsphere", "provider.name", "vsphere"),
    ("vsphere.hostname", "vc.example.com", "provider.settings.hostname", "vc.example.com"),
    ("vsphere.port", 8443, "provider.settings.port", 8443),
    ("vsphere.username", "backup@vsphere.local", "provider.settings.username", "backup@vsphere.local"),
    ("vsphere.password", "not so open", "provider.settings.password", "not so open"),
    ("vsphere.validate_certs", False, "provider.settings.validate_certs", False),
    ("vsphere.ca_path", "/etc/ssl/lab.pem", "provider.settings.ca_path", "/etc/ssl/lab.pem"),
    ("vsphere.thumbprint", "AB" * 32, "provider.settings.thumbprint", "AB" * 32),
    ("vsphere.proxy_host", "proxy.example.com", "provider.settings.proxy_host", "proxy.example.com"),
    ("vsphere.proxy_port", 3128, "provider.settings.proxy_port", 3128),
    ("vsphere.host_map", {"esx1": "192.0.2.7"}, "provider.settings.host_map", {"esx1": "192.0.2.7"}),
    ("vsphere.vddk_libdir", "/opt/vddk", "provider.settings.vddk_libdir", "/opt/vddk"),
    ("vsphere.nbd_uri", "nbd://x/{snapshot}/{key}", "provider.settings.nbd_uri", "nbd://x/{snapshot}/{key}"),
]
AWS: list[tuple[str, Any, str, Any]] = [
    ("provider", "aws", "provider.name", "aws"),
    ("aws.region", "eu-central-1", "provider.settings.region", "eu-central-1"),
    ("aws.profile", "offsite", "provider.settings.profile", "offsite"),
    ("aws.access_key", "AKID", "provider.settings.access_key", "AKID"),
    ("aws.secret_key", "not so open", "provider.settings.secret_key", "not so open"),
    ("aws.session_token", "for an hour", "provider.settings.session_token", "for an hour"),
    ("aws.role_arn", "arn:aws:iam::1:role/b", "provider.settings.role_arn", "arn:aws:iam::1:role/b"),
    ("aws.role_session_name", "nightly", "provider.settings.role_session_name", "nightly"),
    ("aws.external_id", "42", "provider.settings.external_id", "42"),
    ("aws.web_identity_token_file", "/run/token", "provider.settings.web_identity_token_file", "/run/token"),
    ("aws.sts_endpoint_url", "http://127.0.0.1:1", "provider.settings.sts_endpoint_url", "http://127.0.0.1:1"),
    ("aws.endpoint_url", "http://127.0.0.1:1", "provider.settings.endpoint_url", "http://127.0.0.1:1"),
    ("aws.validate_certs", False, "provider.settings.validate_certs", False),
    ("aws.ca_path", "/etc/ssl/lab.pem", "provider.settings.ca_path", "/etc/ssl/lab.pem"),
]
PROXMOX: list[tuple[str, Any, str, Any]] = [
    ("provider", "proxmox", "provider.name", "proxmox"),
    ("proxmox.api_host", "pve.example.com", "provider.settings.api_host", "pve.example.com"),
    ("proxmox.api_port", 443, "provider.settings.api_port", 443),
    ("proxmox.api_user", "backup@pve", "provider.settings.api_user", "backup@pve"),
    ("proxmox.api_password", "not so open", "provider.settings.api_password", "not so open"),
    ("proxmox.api_token_id", "nightly", "provider.settings.api_token_id", "nightly"),
    ("proxmox.api_token_secret", "not so open", "provider.settings.api_token_secret", "not so open"),
    ("proxmox.validate_certs", False, "provider.settings.validate_certs", False),
    ("proxmox.ca_path", "/etc/ssl/pve.pem", "provider.settings.ca_path", "/etc/ssl/pve.pem"),
    ("proxmox.api_timeout", 90, "provider.settings.api_timeout", 90),
    ("proxmox.transport", "ssh", "provider.settings.transport", "ssh"),
    ("proxmox.host_map", {"pve1": "192.0.2.11"}, "provider.settings.host_map", {"pve1": "192.0.2.11"}),
    ("proxmox.ssh_user", "ferry", "provider.settings.ssh_user", "ferry"),
    ("proxmox.ssh_port", 2222, "provider.settings.ssh_port", 2222),
    ("proxmox.ssh_private_key_file", "/root/.ssh/pve", "provider.settings.ssh_private_key_file", "/root/.ssh/pve"),
    ("proxmox.ssh_known_hosts", "/etc/ssh/pve_hosts", "provider.settings.ssh_known_hosts", "/etc/ssh/pve_hosts"),
    ("proxmox.fleecing_storage", "local", "provider.settings.fleecing_storage", "local"),
]
HYPERVISORS = [*PROVIDER, *AWS, *PROXMOX, *VSPHERE]
STORE: list[tuple[str, Any, str, Any]] = [
    ("url", "s3://backups/vms", "store.url", "s3://backups/vms"),
    ("storage.allowed_hosts", ["s3.example.org"], "store.settings.allowed_hosts", ["s3.example.org"]),
    ("storage.endpoint_url", "http://127.0.0.1:8333", "store.settings.endpoint_url", "http://127.0.0.1:8333"),
    ("storage.region", "eu-central-1", "store.settings.region", "eu-central-1"),
    ("storage.profile", "offsite", "store.settings.profile", "offsite"),
    ("storage.access_key", "AKID", "store.settings.access_key", "AKID"),
    ("storage.secret_key", "not so open", "store.settings.secret_key", "not so open"),
    ("storage.session_token", "for an hour", "store.settings.session_token", "for an hour"),
    ("storage.role_arn", "arn:aws:iam::1:role/b", "store.settings.role_arn", "arn:aws:iam::1:role/b"),
    ("storage.role_session_name", "nightly", "store.settings.role_session_name", "nightly"),
    ("storage.external_id", "42", "store.settings.external_id", "42"),
    ("storage.web_identity_token_file", "/run/token", "store.settings.web_identity_token_file", "/run/token"),
    ("storage.sts_endpoint_url", "http://127.0.0.1:8333", "store.settings.sts_endpoint_url", "http://127.0.0.1:8333"),
    ("storage.anonymous", True, "store.settings.anonymous", True),
    ("storage.storage_class", "STANDARD_IA", "store.settings.storage_class", "STANDARD_IA"),
    ("storage.request_payer", "requester", "store.settings.request_payer", "requester"),
    ("storage.use_accelerate_endpoint", True, "store.settings.use_accelerate_endpoint", True),
    ("storage.object_lock_mode", "COMPLIANCE", "store.settings.object_lock_mode", "COMPLIANCE"),
    (
        "storage.object_lock_retain_until",
        "2027-01-01T00:00:00Z",
        "store.settings.object_lock_retain_until",
        "2027-01-01T00:00:00Z",
    ),
    ("storage.object_lock_retention", "30d", "store.settings.object_lock_retention", 30 * DAY),
    ("storage.object_lock_legal_hold", True, "store.settings.object_lock_legal_hold", True),
    ("storage.addressing_style", "path", "store.settings.addressing_style", "path"),
    ("storage.validate_certs", False, "store.settings.validate_certs", False),
    ("storage.ca_path", "/etc/ssl/lab.pem", "store.settings.ca_path", "/etc/ssl/lab.pem"),
    ("storage.connect_timeout", "2m", "store.settings.connect_timeout", 120.0),
    ("storage.sse", "aws:kms", "store.settings.sse", "aws:kms"),
    ("storage.sse_kms_key_id", "alias/vms", "store.settings.sse_kms_key_id", "alias/vms"),
    ("storage.sse_customer_key", "c2VjcmV0", "store.settings.sse_customer_key", "c2VjcmV0"),
    ("storage.type", "s3", "store.settings.type", "s3"),
    ("storage.token", "open sesame", "store.settings.token", "open sesame"),
    ("storage.username", "ferry", "store.settings.username", "ferry"),
    ("storage.password", "not so open", "store.settings.password", "not so open"),
    ("storage.headers", {"X-Tenant": "lab"}, "store.settings.headers", {"X-Tenant": "lab"}),
    ("storage.client_cert", "/etc/ssl/me.pem", "store.settings.client_cert", "/etc/ssl/me.pem"),
    ("storage.client_key", "/etc/ssl/me.key", "store.settings.client_key", "/etc/ssl/me.key"),
    ("storage.auth_kind", "machineaccount", "store.settings.auth_kind", "machineaccount"),
    ("storage.service_account_file", "/root/sa.json", "store.settings.service_account_file", "/root/sa.json"),
    ("storage.service_account_contents", "{}", "store.settings.service_account_contents", "{}"),
    ("storage.access_token", "for an hour", "store.settings.access_token", "for an hour"),
    ("storage.user_project", "payer", "store.settings.user_project", "payer"),
    ("storage.storage_class", "NEARLINE", "store.settings.storage_class", "NEARLINE"),
    ("storage.kms_key_name", "projects/p/k", "store.settings.kms_key_name", "projects/p/k"),
    ("storage.account_name", "backups", "store.settings.account_name", "backups"),
    ("storage.account_key", "bm90IHNvIG9wZW4=", "store.settings.account_key", "bm90IHNvIG9wZW4="),
    ("storage.sas_token", "sv=1&sig=x", "store.settings.sas_token", "sv=1&sig=x"),
    ("storage.connection_string", "AccountName=backups", "store.settings.connection_string", "AccountName=backups"),
    ("storage.client_id", "1f0c9a2b", "store.settings.client_id", "1f0c9a2b"),
    ("storage.secret", "known to few", "store.settings.secret", "known to few"),
    ("storage.tenant", "contoso", "store.settings.tenant", "contoso"),
    ("storage.auth_source", "msi", "store.settings.auth_source", "msi"),
    ("storage.cloud_environment", "AzureChinaCloud", "store.settings.cloud_environment", "AzureChinaCloud"),
    ("storage.disable_instance_discovery", True, "store.settings.disable_instance_discovery", True),
    ("storage.access_tier", "cool", "store.settings.access_tier", "cool"),
    ("storage.blob_type", "page", "store.settings.blob_type", "page"),
    ("storage.file_mode", "0640", "store.settings.mode", 0o640),
    ("storage.file_owner", "backup", "store.settings.owner", "backup"),
    ("storage.file_group", "disk", "store.settings.group", "disk"),
    ("storage.mount", "/mnt/nas", "store.settings.mount", "/mnt/nas"),
    ("storage.buffer_size", "8MiB", "store.settings.buffer_size", 8 * MIB),
]
_OF_FILES = {"store.url": "provider.settings.url"}
FILES = [
    (
        f"image.{option}",
        value,
        _OF_FILES.get(path, path.replace("store.settings", "provider.settings.storage")),
        wanted,
    )
    for option, value, path, wanted in STORE
]
TRANSFER: list[tuple[str, Any, str, Any]] = [
    ("parallel", 7, "transfer.parallel", 7),
    ("bandwidth_limit", "20MiB/s", "transfer.bandwidth_limit", "20MiB/s"),
    ("bandwidth_burst", "4MiB", "transfer.bandwidth_burst", 4 * MIB),
    ("priority", "low", "transfer.priority", "low"),
    ("max_retries", 0, "transfer.max_retries", 0),
    ("idle_timeout", "90", "transfer.idle_timeout", 90.0),
    ("max_duration", "12h", "transfer.max_duration", DAY / 2),
    ("state_dir", "/srv/state", "transfer.state_dir", "/srv/state"),
    ("job_id", "6f1d2c0e43a5", "transfer.job_id", "6f1d2c0e43a5"),
    ("max_jobs", 2, "transfer.max_jobs", 2),
    ("controller_timeout", "30s", "transfer.controller_timeout", 30.0),
]
METHOD: list[tuple[str, Any, str, Any]] = [
    ("method", "direct", "method", "direct"),
    ("staging", "s3://stage/vms", "vendor_task.staging", "s3://stage/vms"),
    ("task_role", "exporter", "vendor_task.role", "exporter"),
    ("poll_interval", "1m", "vendor_task.poll_interval", 60.0),
    ("task_timeout", "5h", "vendor_task.timeout", 5 * 3600.0),
    ("cleanup_staging", False, "vendor_task.cleanup", False),
]
EXPORT = [
    *HYPERVISORS,
    *FILES,
    *STORE,
    *TRANSFER,
    *SIGNING,
    *SEALING,
    PROVED,
    ("vm", "db01", "vm", "db01"),
    ("disks", ["disk-0", "vdb"], "disks", ("disk-0", "vdb")),
    ("name", "before-upgrade", "name", "before-upgrade"),
    ("max_age", "30d", "max_age", 30 * DAY),
    ("mode", "incremental", "mode", "incremental"),
    ("full_after", "7d", "full_after", 7 * DAY),
    ("max_chain", 6, "max_chain", 6),
    ("spot_check", 0, "spot_check", 0),
    ("track_changes", False, "track_changes", False),
    ("resume_window", "0", "resume_window", 0.0),
    ("on_failure", "undo", "on_failure", "undo"),
    ("attach", True, "attach", True),
    *METHOD,
    *(
        (f"copies_to.{option}", value, path.replace("store", "copies_to.0", 1), wanted)
        for option, value, path, wanted in STORE
    ),
    ("snapshot.name", "nightly-{date}", "snapshot.name", "nightly-{date}"),
    ("snapshot.source", "before-upgrade", "snapshot.source", "before-upgrade"),
    ("snapshot.memory", True, "snapshot.memory", True),
    ("snapshot.keep", 3, "snapshot.keep", 3),
    ("consistency", "quiesced", "consistency", "quiesced"),
    ("shutdown_timeout", "5m", "shutdown_timeout", 300.0),
    ("format", "raw", "format", "raw"),
    ("compression", "zstd", "compression", "zstd"),
    ("compression_level", 7, "compression_level", 7),
    ("part_size", "64MiB", "part_size", 64 * MIB),
    ("verify", "content", "verify", "content"),
    ("detach", ["floppy"], "detach", ("floppy",)),
    ("tags", ["daily", "prod"], "tags", ("daily", "prod")),
    ("purpose", "backup", "purpose", "backup"),
]
LANDING: list[tuple[str, Any, str, Any]] = [
    ("name", "db02", "placement.name", "db02"),
    ("hardware.cpu", 4, "placement.cpu", 4),
    ("hardware.memory", "4GiB", "placement.memory_mb", 4096),
    ("hardware.networks", ["lab", "dmz"], "networks", ("lab", "dmz")),
    ("hardware.networks", [], "networks", ()),
    ("placement.storage", "fast", "placement.storage", "fast"),
    ("placement.disk_format", "raw", "placement.disk_format", "raw"),
    ("placement.disk_bus", "scsi", "placement.disk_bus", "scsi"),
    ("placement.disk_provisioning", "eager", "placement.disk_provisioning", "eager"),
    ("placement.folder", "/DC0/vm/Prod", "placement.folder", "/DC0/vm/Prod"),
    ("placement.cluster", "C1", "placement.cluster", "C1"),
    ("placement.host", "esx1", "placement.host", "esx1"),
    ("placement.resource_pool", "Gold", "placement.resource_pool", "Gold"),
    ("placement.firmware", "uefi", "placement.firmware", "uefi"),
    ("placement.keep_mac", True, "placement.keep_mac", True),
    ("placement.keep_uuid", True, "placement.keep_uuid", True),
    ("placement.power_on", True, "placement.power_on", True),
    ("placement.stop_at", "image", "placement.stop_at", "image"),
    ("placement.vmid", 120, "placement.vmid", 120),
    ("placement.instance_type", "m7i.large", "placement.instance_type", "m7i.large"),
    ("placement.subnet_id", "subnet-0f1e", "placement.subnet_id", "subnet-0f1e"),
    ("placement.security_groups", ["web"], "placement.security_groups", ["web"]),
    ("placement.key_name", "admin", "placement.key_name", "admin"),
    ("placement.iam_instance_profile", "worker", "placement.iam_instance_profile", "worker"),
    ("placement.volume_type", "gp2", "placement.volume_type", "gp2"),
    ("placement.encrypted", True, "placement.encrypted", True),
    ("placement.kms_key_id", "arn:aws:kms:x:1:key/y", "placement.kms_key_id", "arn:aws:kms:x:1:key/y"),
    ("network_map", {"production": "isolated"}, "placement.network_map", {"production": "isolated"}),
    ("detach", ["cdrom"], "detach", ("cdrom",)),
    ("storage_map", {"disk-1": "slow"}, "placement.storage_map", {"disk-1": "slow"}),
]
IMPORT = [
    *HYPERVISORS,
    *FILES,
    *STORE,
    *TRANSFER,
    *TRUST,
    *OPENING,
    *LANDING,
    *METHOD,
    ("export", "before-upgrade", "export", "before-upgrade"),
    ("vm", "db01", "vm", "db01"),
    ("source_vm", {"name": "db01"}, "source_vm", {"name": "db01"}),
]
MIGRATE = [
    *(
        (f"{end}.{option}", value, path.replace("provider", end, 1), wanted)
        for end in ("source", "destination")
        for option, value, path, wanted in [*HYPERVISORS, *FILES]
    ),
    *TRANSFER,
    *LANDING,
    ("vm", "db01", "vm", "db01"),
    ("disks", ["disk-0", "vdb"], "disks", ("disk-0", "vdb")),
    ("consistency", "quiesced", "consistency", "quiesced"),
    ("verify", "none", "verify", "none"),
]
BRING_VM = [
    *HYPERVISORS,
    ("vm", "db01", "vm", "db01"),
    ("state", "absent", "state", "absent"),
    ("timeout", "90s", "timeout", 90.0),
    ("force", True, "force", True),
    ("remove_disks", True, "remove_disks", True),
]
VERIFY = [
    *PROVIDER,
    *STORE,
    *TRANSFER,
    *TRUST,
    *OPENING,
    ("export", "before-upgrade", "export", "before-upgrade"),
    ("vm", "db01", "vm", "db01"),
    ("level", "stored", "level", "stored"),
    ("max_age", "7d", "max_age", 7 * DAY),
    ("boot.serial", "login:", "markers.serial", "login:"),
    ("boot.agent", True, "markers.agent", True),
    ("boot.screen", True, "markers.screen", True),
    ("boot.timeout", "90s", "markers.timeout", 90.0),
    ("boot.storage", "scratch", "storage", "scratch"),
]
END_JOB = [
    *HYPERVISORS,
    *FILES,
    *STORE,
    ("job", "20261121-1a2b", "job", "20261121-1a2b"),
    ("state", "cancelled", "state", "cancelled"),
    ("timeout", "90s", "timeout", 90.0),
    ("state_dir", "/srv/state", "state_dir", "/srv/state"),
]
CLEANUP = [
    *HYPERVISORS,
    *STORE,
    *SIGNING,
    *SEALING,
    ("vm", ["db01", "web01"], "vm", ("db01", "web01")),
    ("tags", ["daily", "prod"], "tags", ("daily", "prod")),
    ("purpose", "backup", "purpose", "backup"),
    ("export", ["20261121T063000Z-1a2b3c4d"], "limits.exports", ("20261121T063000Z-1a2b3c4d",)),
    ("max_age", "30d", "limits.max_age", 30 * DAY),
    ("max_count", 5, "limits.max_count", 5),
    ("max_total_size", "2MiB", "limits.max_total_size", 2 * MIB),
    ("min_free", "7MiB", "limits.min_free", 7 * MIB),
    ("keep_last", 0, "protections.keep_last", 0),
    ("keep_daily", 7, "protections.keep_daily", 7),
    ("keep_weekly", 4, "protections.keep_weekly", 4),
    ("keep_monthly", 12, "protections.keep_monthly", 12),
    ("keep_yearly", 2, "protections.keep_yearly", 2),
    ("preserve", ["before-*", "gold"], "protections.preserve", ("before-*", "gold")),
    ("min_retention", "7d", "protections.min_retention", 7 * DAY),
    ("merge", True, "merge", True),
]
SNAPSHOT = [
    *HYPERVISORS,
    ("vm", "db01", "vm", "db01"),
    ("state", "absent", "state", "absent"),
    ("name", "before-{date}", "name", "before-{date}"),
    ("quiesce", "required", "quiesce", "required"),
    ("memory", True, "memory", True),
    ("method", "internal", "method", "internal"),
    ("keep", 3, "keep", 3),
    ("timeout", "2h", "timeout", 7200.0),
]
TARGET = [
    (option, value, "target.store.url" if option == "url" else f"target.{path}", wanted)
    for option, value, path, wanted in [("url", "s3://backups/old", "", "s3://backups"), *STORE[1:]]
]
REMOVE = [*TARGET, ("key", "a/old.img", "target.key", "a/old.img"), ("if_match", '"1f0c"', "if_match", '"1f0c"')]
DOWNLOAD = [
    *((option, value, path.replace("target.", "source."), wanted) for option, value, path, wanted in TARGET),
    *TRANSFER,
    ("key", "a/old.img", "source.key", "a/old.img"),
    ("dest", "/srv/b.img", "dest", "/srv/b.img"),
    ("checksum", f"sha256:{'AB' * 32}", "checksum", "ab" * 32),
    ("overwrite", "never", "overwrite", "never"),
    ("mode", "0644", "access.mode", 0o644),
    ("owner", "qemu", "access.owner", "qemu"),
    ("group", "disk", "access.group", "disk"),
    ("resume_window", "0", "resume_window", 0.0),
]
UPLOAD = [
    *STORE,
    *TRANSFER,
    ("src", "/srv/a, b.img", "src", ("/srv/a, b.img",)),
    ("src", ["/srv/*.iso", "/etc/libvirt"], "src", ("/srv/*.iso", "/etc/libvirt")),
    ("key", "{vm}/{file}", "key", "{vm}/{file}"),
    ("vm", "web01", "vm", "web01"),
    ("checksum", "AB" * 32, "checksum", "ab" * 32),
    ("metadata", {"os": "debian", "release": 13}, "metadata", {"os": "debian", "release": "13"}),
    ("overwrite", "always", "overwrite", "always"),
    ("keep_source", False, "keep_source", False),
    ("verify", "none", "read_back", False),
    ("resume_window", "12h", "resume_window", DAY / 2),
]
COPY = [
    *(
        (f"{end}.{option}", value, path.replace("store", end, 1), wanted)
        for end in ("source", "destination")
        for option, value, path, wanted in STORE
    ),
    *TRANSFER,
    ("source.key", "b.img", "key", "b.img"),
    ("source.prefix", "isos/", "prefix", "isos/"),
    ("destination.key", "c.img", "new_key", "c.img"),
    ("checksum", "AB" * 32, "checksum", "ab" * 32),
    ("overwrite", "always", "overwrite", "always"),
    ("transfer", "relay", "relay", True),
    ("verify", "none", "read_back", False),
    ("resume_window", "12h", "resume_window", DAY / 2),
]
LOOK = [*STORE, ("key", "a/b.img", "key", "a/b.img"), ("prefix", "a/", "prefix", "a/"), ("limit", 7, "limit", 7)]
REQUESTS = [
    *(("disk_snapshot", *row) for row in SNAPSHOT),
    *(("export_cleanup", *row) for row in CLEANUP),
    *(("vm_export", *row) for row in EXPORT),
    *(("vm_import", *row) for row in IMPORT),
    *(("vm_migrate", *row) for row in MIGRATE),
    *(("export_verify", *row) for row in VERIFY),
    *(("job", *row) for row in END_JOB),
    *(("vm", *row) for row in BRING_VM),
    *(("storage_copy", *row) for row in COPY),
    *(("storage_download", *row) for row in DOWNLOAD),
    *(("storage_info", *row) for row in LOOK),
    *(("storage_object", *row) for row in REMOVE),
    *(("storage_upload", *row) for row in UPLOAD),
]
# The others take no request; what they are called with is looked up in (positional, named).
CALLS: list[tuple[str, str, Any, str, Any]] = [
    *(
        ("vm_info", option, value, f"0.{path.partition('.')[2]}", wanted)
        for option, value, path, wanted in [*HYPERVISORS, *FILES]
    ),
    ("vm_info", "vm", ["web01", "db01"], "1", ["web01", "db01"]),
    *(
        ("disk_snapshot_info", option, value, f"0.{path.partition('.')[2]}", wanted)
        for option, value, path, wanted in HYPERVISORS
    ),
    ("disk_snapshot_info", "vm", "db01", "1", "db01"),
    ("disk_snapshot_info", "name", "before-upgrade", "2", "before-upgrade"),
    ("vm_info", "filters.name", "web*", "2.name", "web*"),
    ("vm_info", "filters.power_state", "paused", "2.power_state", "paused"),
    ("vm_info", "filters.folder", "prod/*", "2.folder", "prod/*"),
    ("vm_info", "filters.tag", "prod", "2.tag", "prod"),
    *(("export_info", option, value, f"0.{path.partition('.')[2]}", wanted) for option, value, path, wanted in STORE),
    ("export_info", "vm", "db01", "vm", "db01"),
    ("export_info", "export", "before-upgrade", "export", "before-upgrade"),
    ("export_info", "tags", ["daily"], "tags", ["daily"]),
    ("export_info", "purpose", "backup", "purpose", "backup"),
    ("export_info", "statistics", True, "statistics", True),
    *(("export_info", *row) for row in TRUST),
    ("job_info", "job", "20261121-1a2b", "job", "20261121-1a2b"),
    ("job_info", "vm", "db01", "vm", "db01"),
    ("job_info", "state", "failed", "state", "failed"),
    ("job_info", "state_dir", "/srv/state", "0", "/srv/state"),
    ("job_info", "log_lines", 3, "log_lines", 3),
    *(("job_info", option, value, path, wanted) for option, value, path, wanted in STORE),
]
# `state` has a single choice, which is what the module does; the others are what the action plugin goes by.
WITHOUT_EFFECT = (
    {("vm_import", "state"), ("export_cleanup", "orphans"), ("export_cleanup", "credentials_from")}
    | {
        ("storage_object", "state"),
        ("storage_object", "credentials_from"),
    }
    | {
        (module, option)
        for module in (
            *("export_verify", "storage_copy", "storage_download", "storage_upload"),
            *("vm_export", "vm_import", "vm_migrate"),
        )
        for option in ("progress", "progress_interval", "credentials_from")
    }
)

OF_THE_ACTION = "transfer.watcher"  # no option: see test_environment
OF_WRITERS = {module: set() if module == "vm_export" else {"seals.signers", "seals.journal_key"} for module in MODULES}


def task(option: str, value: Any) -> dict[str, Any]:
    if option == "source.prefix":  # instead of the key
        return {"source": {"key": None, "prefix": value}}
    if option == "shutdown_timeout":
        return {option: value, "consistency": "powered_off"}
    outer, _dot, inner = option.partition(".")
    if outer in ("staging", "task_role", "poll_interval", "task_timeout", "cleanup_staging"):
        return {"method": "vendor_task", "staging": "s3://stage", outer: value}
    if outer == "image":
        return {"provider": outer, outer: {"url": "file:///srv/images", **task(inner, value)}}
    if outer in ("aws", "proxmox", "vsphere"):
        return {"provider": outer, outer: task(inner, value)}
    if outer == "copies_to":
        return {outer: [{"url": "file:///srv/copies", **task(inner, value)}]}
    if outer == "storage" and inner:
        return {"url": url_for(inner, value), outer: task(inner, value)}
    return {outer: task(inner, value)} if inner else {outer: value}


def url_for(option: str, value: Any) -> str:
    """Of a store that has it."""
    if option == "type":
        return "https://s3.example.org/backups/a.img"
    if option == "storage_class" and value == "STANDARD_IA":
        return "s3://backups/a.img"
    urls = ("s3://backups/a.img", "gs://backups/a.img", "azblob://backups/a.img", "https://host/a.img", "/srv/a.img")
    return next(url for url in reversed(urls) if option in store_kind(url).options)


def look_up(holder: Any, path: str) -> Any:
    for step in path.split("."):
        if isinstance(holder, tuple):
            holder = holder[int(step)] if holder else None
        elif holder is not None:  # a provider or a store that may be left out
            holder = holder.get(step) if isinstance(holder, dict) else getattr(holder, step)
    return holder


def name_of(value: Any) -> str | None:
    """Every worker of the tests has files of its own, and all must call a test alike."""
    return "a file" if value in (PEM_FILE.name, WORD_FILE.name) else None


@pytest.mark.parametrize(("module", "option", "value", "path", "wanted"), REQUESTS, ids=name_of)
def test_option_reaches_the_request(
    modules: ModuleRun, module: str, option: str, value: Any, path: str, wanted: Any
) -> None:
    assert look_up(modules.request(module, task(option, value)), path) == wanted
    if (option.rpartition(".")[2], value) != ("provider", "libvirt"):  # which cannot be left out of the least task
        assert look_up(modules.request(module, {}), path) != wanted


@pytest.mark.parametrize(("module", "option", "value", "path", "wanted"), CALLS)
def test_option_reaches_the_call(
    modules: ModuleRun, module: str, option: str, value: Any, path: str, wanted: Any
) -> None:
    def asked(arguments: dict[str, Any]) -> Any:
        modules.succeed(module, arguments)
        positional, named = modules.calls[-1]
        return look_up({**{str(place): one for place, one in enumerate(positional)}, **named}, path)

    assert asked(task(option, value)) == wanted
    if (option, value) != ("provider", "libvirt"):
        assert asked({}) != wanted


def every_option(module: str) -> Iterator[str]:
    def below(options: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for name, definition in options.items():
            if "options" in definition:
                yield from below(definition["options"], f"{prefix}{name}.")
            else:
                yield prefix + name

    yield from below(MODULES[module].argument_spec().options)


@pytest.mark.parametrize("module", MODULES)
def test_every_option_is_in_a_table_above(module: str) -> None:
    tested = {row[1] for row in [*REQUESTS, *CALLS] if row[0] == module}
    assert {option for option in every_option(module) if (module, option) not in WITHOUT_EFFECT} == tested


@pytest.mark.parametrize(
    "module",
    [
        *("disk_snapshot", "export_verify", "storage_copy", "storage_download", "storage_upload"),
        *("vm_export", "vm_import", "vm_migrate"),
    ],
)
def test_every_field_of_a_request_can_be_asked_for(modules: ModuleRun, module: str) -> None:
    def paths(holder: Any, prefix: str = "") -> Iterator[str]:
        for field in fields(holder):
            value = getattr(holder, field.name)
            if is_dataclass(value):
                yield from paths(value, f"{prefix}{field.name}.")
            elif field.name != "settings":
                yield prefix + field.name

    asked_for = {row[3] for row in REQUESTS if row[0] == module}
    asked_for |= {path[:end] for path in asked_for for end, one in enumerate(path) if one == "."}  # or left out
    assert set(paths(modules.request(module, {}))) - {OF_THE_ACTION} - OF_WRITERS[module] <= asked_for


def test_vms_are_found_by_the_power_states_that_are_returned() -> None:
    filters = MODULES["vm_info"].argument_spec().options["filters"]["options"]
    assert tuple(filters["power_state"]["choices"]) == get_args(PowerState)


def test_all_vms_are_asked_for_when_none_is_named(modules: ModuleRun) -> None:
    modules.succeed("vm_info", {})
    assert modules.calls[-1][0][1:] == (None, {})


@pytest.mark.parametrize("module", ["job", "job_info"])
def test_a_job_is_looked_for_in_a_store_only_where_one_is_named(modules: ModuleRun, module: str) -> None:
    modules.succeed(module, {"url": None})
    positional, named = modules.calls[-1]
    assert (named["store"] if module == "job_info" else positional[0].store) is None


def test_what_is_left_out_stays_the_choice_of_the_engine(modules: ModuleRun) -> None:
    request = modules.request("vm_export", {})
    assert request.provider.settings == {"uri": "qemu:///system"}
    assert request.store.settings == {
        "addressing_style": "auto",
        "anonymous": False,
        "auth_source": "auto",
        "blob_type": "auto",
        "buffer_size": 32 * MIB,
        "cloud_environment": "AzureCloud",
        "connect_timeout": 60.0,
        "disable_instance_discovery": False,
        "mode": 0o600,
        "object_lock_legal_hold": False,
        "sse": "none",
        "type": "auto",
        "use_accelerate_endpoint": False,
        "validate_certs": True,
    }
    assert (request.disks, request.max_age, request.name, request.purpose) == (None, None, "", "")
    assert request.transfer.state_dir == ""


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize(
    "module",
    [
        "disk_snapshot",
        "export_cleanup",
        "export_verify",
        "storage_download",
        "storage_upload",
        "vm_export",
        "vm_import",
        "vm_migrate",
    ],
)
def test_check_mode_is_handed_on(modules: ModuleRun, module: str, check_mode: bool) -> None:
    modules.succeed(module, {}, check_mode=check_mode)
    assert modules.calls[-1][0][1] is check_mode


@pytest.mark.parametrize("module", LEAST)
def test_check_mode_is_supported(modules: ModuleRun, module: str) -> None:
    modules.succeed(module, {}, check_mode=True)
    assert modules.calls


@pytest.mark.parametrize("level", ["manifest", "stored", "content"])
def test_an_export_is_verified_without_a_provider_unless_it_boots(modules: ModuleRun, level: str) -> None:
    modules.without_package("libvirt")
    assert modules.request("export_verify", {"level": level, "provider": None}).provider is None
    assert modules.fail("export_verify", {"provider": None})["error"]["kind"] == "invalid_config"


def test_orphans_are_asked_for_by_name(modules: ModuleRun) -> None:
    assert modules.request("export_cleanup", {}).orphans is True
    assert modules.request("export_cleanup", {"orphans": False, "max_age": "1d"}).orphans is False


def test_a_provider_counts_only_where_orphans_are_removed(modules: ModuleRun) -> None:
    asked = modules.request("export_cleanup", {"orphans": False, "max_age": "1d"})
    assert asked.provider is None
    assert modules.request("export_cleanup", {"provider": None}).provider is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"orphans": False}, "sets no limit"),
        ({"max_age": "soon"}, "max_age: 'soon' is not a duration"),
        ({"max_count": 0}, "max_count is 0"),
        ({"max_total_size": "0"}, "max_total_size is 0"),
        ({"min_free": "much"}, "min_free: 'much' is not a size"),
        ({"keep_daily": -1}, "keep_daily is -1"),
        ({"preserve": [""]}, "preserve has an empty pattern"),
        ({"min_retention": "0"}, "min_retention is 0"),
        ({"vm": [""]}, "vm has an empty name"),
        ({"export": ["web01"]}, "export names 'web01', which is no export's id"),
    ],
)
def test_a_cleanup_that_cannot_be_meant_is_refused(modules: ModuleRun, arguments: dict[str, Any], told: str) -> None:
    outcome = modules.fail("export_cleanup", arguments)
    assert told in outcome["msg"]
    assert outcome["error"]["kind"] == "invalid_config"
    assert modules.calls == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"src": ""}, "neither a path nor a list"),
        ({"src": []}, "neither a path nor a list"),
        ({"src": {"a": "b"}}, "neither a path nor a list"),
        ({"key": ""}, "key is empty"),
        ({"vm": ""}, "vm is empty"),
        ({"checksum": "md5:abc"}, "which is no SHA-256"),
        ({"metadata": {"Über": "x"}}, "not every store takes"),
        ({"metadata": {"vmferry-sha256": "x"}}, "not every store takes"),
        ({"metadata": {"os": "a\nb"}}, "no text of one line"),
        ({"resume_window": "soon"}, "resume_window: 'soon' is not a duration"),
    ],
)
def test_an_upload_that_cannot_be_meant_is_refused(modules: ModuleRun, arguments: dict[str, Any], told: str) -> None:
    outcome = modules.fail("storage_upload", arguments)
    assert told in outcome["msg"]
    assert outcome["error"]["kind"] == "invalid_config"
    assert modules.calls == []


@pytest.mark.parametrize(
    ("module", "arguments", "told"),
    [
        ("storage_info", {"key": "a", "prefix": "b"}, "key and prefix are both set"),
        ("storage_info", {"limit": 0}, "limit is 0"),
        ("storage_info", {"key": ""}, "key is empty"),
        ("storage_object", {"url": "s3://bucket"}, "names no object"),
        ("storage_object", {"key": "../a"}, "segment"),
        ("storage_object", {"if_match": ""}, "if_match is empty"),
        ("storage_download", {"url": "file:///srv/exports/"}, "names no object"),
        ("storage_download", {"mode": "rw"}, "not the mode of a file"),
        ("vm_export", {"copies_to": [{"url": "file:///srv/exports/"}]}, "twice, or where the export is"),
        ("vm_export", {"copies_to": [{"url": "s3://a"}, {"url": "s3://a/"}]}, "twice, or where the export is"),
        ("storage_copy", {"source": {"prefix": "a/"}}, "key and prefix are both set"),
        ("storage_copy", {"source": {"key": None, "url": "s3://bucket"}}, "names no object"),
        ("storage_copy", {"source": {"key": None, "prefix": ""}, "destination": {"key": "b"}}, "is of one object"),
        ("storage_copy", {"source": {"key": None, "prefix": ""}, "checksum": "ab" * 32}, "is of one object"),
        ("storage_copy", {"destination": {"key": "../b"}}, "segment"),
    ],
)
def test_an_object_that_cannot_be_meant_is_refused(
    modules: ModuleRun, module: str, arguments: dict[str, Any], told: str
) -> None:
    outcome = modules.fail(module, arguments)
    assert told in outcome["msg"]
    assert outcome["error"]["kind"] == "invalid_config"
    assert modules.calls == []


@pytest.mark.parametrize(
    ("url", "store", "key"),
    [
        ("s3://bucket/a/b%20c.img", "s3://bucket/a", "b c.img"),
        ("s3://bucket/a.img", "s3://bucket", "a.img"),
        ("file:///srv/%C3%A4.img", "file:///srv", "ä.img"),
        ("/srv/b%20c.img", "/srv", "b%20c.img"),
        ("/a.img", "/", "a.img"),
    ],
)
def test_the_url_of_an_object_is_its_store_and_its_key(modules: ModuleRun, url: str, store: str, key: str) -> None:
    target = modules.request("storage_object", {"url": url}).target
    assert (target.store.url, target.key) == (store, key)


def test_each_end_of_a_copy_has_credentials_of_its_own(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the environment")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of the environment")
    own = {"url": "s3://there", "storage": {"access_key": "AKID", "secret_key": "of the task"}}
    request = modules.request("storage_copy", {"source": {"url": "s3://here"}, "destination": own})
    assert request.source.settings["session_token"] == "of the environment"
    assert request.destination.settings["secret_key"] == "of the task"
    assert "session_token" not in request.destination.settings
