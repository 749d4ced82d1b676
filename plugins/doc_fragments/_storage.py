# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where exports live, and how to get in."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  url:
    description:
      - The store in which the exports live.
      - V(file:///path), or just the absolute path, is a folder of the host that runs the module.
      - V(s3://bucket/prefix) is a bucket, or a part of it.
      - Must not carry credentials; they belong into O(storage).
    type: str
    required: true
  storage:
    description:
      - How to reach the store. Connection settings only.
      - A task's dictionary replaces the one in C(module_defaults) as a whole; use the P(ansible.builtin.combine#filter)
        filter to change one value of it.
      - Credentials come either all from the task or all from the environment. Without any, those of the AWS SDK's own
        chain are used, among them its configuration files and the role of the machine.
    type: dict
    suboptions:
      endpoint_url:
        description:
          - The URL of the S3 service, for every service but AWS.
          - If not given, the environment variables E(AWS_ENDPOINT_URL_S3) and E(AWS_ENDPOINT_URL) are used.
        type: str
      region:
        description:
          - The region of the bucket.
          - If not given, the environment variables E(AWS_REGION) and E(AWS_DEFAULT_REGION) are used.
        type: str
      profile:
        description:
          - The profile of the AWS configuration files to take credentials from. Excludes access keys.
          - If not given, the environment variables E(AWS_PROFILE) and E(AWS_DEFAULT_PROFILE) are used, unless the task
            gives another credential or the environment has an access key.
        type: str
      access_key:
        description:
          - The id of the access key. It is not a secret and is not masked.
          - If not given, the environment variable E(AWS_ACCESS_KEY_ID) is used, unless the task gives another
            credential.
        type: str
      secret_key:
        description:
          - The secret of the access key.
          - If not given, the environment variable E(AWS_SECRET_ACCESS_KEY) is used, unless the task gives another
            credential.
        type: str
      session_token:
        description:
          - The session token that belongs to a temporary access key.
          - If not given, the environment variable E(AWS_SESSION_TOKEN) is used, unless the task gives another
            credential.
        type: str
      addressing_style:
        description:
          - Whether the bucket is named in the path or in the host name of requests.
          - V(auto) leaves the choice to the AWS SDK, which takes the path where O(storage.endpoint_url) is given, and
            the host name at AWS.
        type: str
        choices:
          - auto
          - path
          - virtual
        default: auto
      validate_certs:
        description:
          - Whether to check the TLS certificate of the service.
        type: bool
        default: true
      ca_path:
        description:
          - A file with the certificates of the authorities to trust instead of the default ones.
          - If not given, the environment variable E(AWS_CA_BUNDLE) is used, or else what the profile says.
        type: path
      connect_timeout:
        description:
          - How long to wait for a connection, for example V(30s) or V(2m).
        type: str
        default: 60s
      sse:
        description:
          - The server-side encryption to ask for. With V(none), the bucket's own setting decides.
        type: str
        choices:
          - none
          - AES256
          - aws:kms
        default: none
      sse_kms_key_id:
        description:
          - The id or ARN of the KMS key to encrypt with. If not given, the account's default key is used.
          - Needs O(storage.sse=aws:kms).
        type: str
      sse_customer_key:
        description:
          - A key of 32 bytes, in base64, with which the server encrypts and which it does not keep (SSE-C).
          - Excludes O(storage.sse).
          - The same key is needed to read an export again.
        type: str
      file_mode:
        description:
          - The mode of files in a V(file://) store, as a quoted octal number. Folders get the same, and may be entered
            by whoever may read.
        type: raw
        default: '0600'
      file_owner:
        description:
          - The owner of files and folders in a V(file://) store, as a name or a number. If not given, the user that
            runs the module.
        type: str
      file_group:
        description:
          - The group of files and folders in a V(file://) store, as a name or a number. If not given, the group of the
            user that runs the module.
        type: str
requirements:
  - boto3 1.26 or newer, for V(s3://), on the host that runs the module
"""
