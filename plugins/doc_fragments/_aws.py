# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach AWS."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  aws:
    description:
      - How to reach an account of AWS, in one region. Connection settings only.
      - A task's dictionary replaces the one in C(module_defaults) as a whole; use the P(ansible.builtin.combine#filter)
        filter to change one value of it.
      - Credentials come either all from the task or all from the environment. Without any, those of the AWS SDK's own
        chain are used, among them its configuration files and the role of the machine.
      - See U(https://github.com/vmferry/vmferry.migrate/blob/main/docs/aws.md), also for the permissions that the
        credentials need.
    type: dict
    suboptions:
      region:
        description:
          - The region of the instances, such as V(eu-central-1).
          - If not given, the environment variables E(AWS_REGION) and E(AWS_DEFAULT_REGION) are used, or what the
            profile says. One of them has to name a region.
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
      role_arn:
        description:
          - The ARN of a role to assume with the other credentials, or with O(aws.web_identity_token_file), for example
            of the account that has the instances.
          - Its credentials are asked for again before they expire, however long a task takes.
          - If no credentials are given at all, the AWS SDK looks at the environment variables E(AWS_ROLE_ARN) and
            E(AWS_WEB_IDENTITY_TOKEN_FILE) itself.
        type: str
      role_session_name:
        description:
          - What the session of O(aws.role_arn) is called in the account's audit log. If not given, C(vmferry).
        type: str
      external_id:
        description:
          - The external id that the trust policy of O(aws.role_arn) asks for. It is not a secret and is not masked.
        type: str
      web_identity_token_file:
        description:
          - A file, on the host that runs the module, with the token of an identity provider that O(aws.role_arn)
            trusts. It takes the place of all other credentials, and is read again whenever they are renewed.
        type: path
      sts_endpoint_url:
        description:
          - The URL of the service that roles are assumed at, and that tells whose the credentials are.
          - If not given, the environment variable E(AWS_ENDPOINT_URL_STS) is used, or else that of AWS in
            O(aws.region).
        type: str
      endpoint_url:
        description:
          - The URL of the service, where it is not AWS's own for O(aws.region). It is that of EC2 and EBS alike.
          - If not given, the AWS SDK from boto3 1.28 on looks at E(AWS_ENDPOINT_URL_EC2), E(AWS_ENDPOINT_URL_EBS) and
            E(AWS_ENDPOINT_URL) itself.
        type: str
      validate_certs:
        description:
          - Whether to check the TLS certificates of the services.
        type: bool
        default: true
      ca_path:
        description:
          - A file with the certificates of the authorities to trust instead of the default ones. It cannot be given
            with V(false) for O(aws.validate_certs).
          - If not given, the environment variable E(AWS_CA_BUNDLE) is used, or else what the profile says.
        type: path
requirements:
  - for AWS, boto3 1.26 or newer on the host that runs the module
"""
