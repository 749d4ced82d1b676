# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which storage options each kind of store looks at, by the names that a task gives them.

One that a store does not look at would promise what nobody does: encryption, a storage class, who pays.
"""

from __future__ import annotations

_EVERY = frozenset({"type", "allowed_hosts"})
_SERVER = _EVERY | {"validate_certs", "ca_path", "connect_timeout"}
FILE_OPTIONS = _EVERY | {"file_mode", "file_owner", "file_group", "mount", "buffer_size"}
HTTP_OPTIONS = _SERVER | {"token", "username", "password", "headers", "client_cert", "client_key"}
S3_OPTIONS = _SERVER | {
    *("endpoint_url", "region", "addressing_style", "use_accelerate_endpoint"),
    *("profile", "access_key", "secret_key", "session_token", "anonymous"),
    *("role_arn", "role_session_name", "external_id", "web_identity_token_file", "sts_endpoint_url"),
    *("sse", "sse_kms_key_id", "sse_customer_key", "storage_class", "request_payer"),
    *("object_lock_mode", "object_lock_retention", "object_lock_retain_until", "object_lock_legal_hold"),
}
AZURE_OPTIONS = _SERVER | {
    *("endpoint_url", "account_name", "account_key", "sas_token", "connection_string", "access_tier", "blob_type"),
    *("client_id", "secret", "tenant", "auth_source", "cloud_environment", "disable_instance_discovery"),
}
GCS_OPTIONS = _SERVER | {
    *("endpoint_url", "auth_kind", "service_account_file", "service_account_contents", "access_token"),
    *("user_project", "storage_class", "kms_key_name"),
}
