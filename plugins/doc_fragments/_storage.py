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
      - V(nfs:///path) is such a folder that has to be on an NFS mount, and V(nfs://folder) one below the mount point
        in O(storage.mount). Nothing is mounted by the module.
      - V(s3://bucket/prefix) is a bucket, or a part of it.
      - V(https://host/path) is a folder of a WebDAV server, or with O(storage.type=s3) a bucket of the S3 service at
        that host.
      - V(gs://bucket/prefix) is a bucket of Google Cloud Storage, or a part of it.
      - V(azblob://container/prefix) is a container of Azure Blob Storage, or a part of it; so is
        V(https://ACCOUNT.blob.core.windows.net/container/prefix).
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
      - For Azure, they are those of the Azure SDK's C(DefaultAzureCredential), among them the managed identity of the
        machine.
    type: dict
    suboptions:
      allowed_hosts:
        description:
          - The only hosts that requests to the store may go to, redirects included, as names like V(s3.example.org), or
            V(*.example.org) for all that is below a domain. A request to any other host fails before it is sent.
          - Of a proxy, the host behind it counts. What only hands out credentials is no store and is not checked.
          - If not given, the environment variable E(VMFERRY_ALLOWED_HOSTS) is used, with commas between the names.
        type: list
        elements: str
      type:
        description:
          - What answers at the address. V(auto) takes it from the URL, for which V(http://) and V(https://) are WebDAV,
            but for the hosts of Azure Blob Storage.
          - With V(s3), V(https://endpoint/bucket/prefix) is a bucket; O(storage.endpoint_url) is then not looked at.
        type: str
        choices:
          - auto
          - azure
          - file
          - gcs
          - http
          - nfs
          - s3
        default: auto
      token:
        description:
          - The bearer token that a V(http://) or V(https://) store is sent. Like every secret, it is not sent over
            V(http://) to another host.
          - Excludes O(storage.username) and O(storage.password).
        type: str
      username:
        description:
          - The user whom a V(http://) or V(https://) store asks for, with basic authentication.
        type: str
      password:
        description:
          - The password of O(storage.username).
        type: str
      headers:
        description:
          - Further headers that a V(http://) or V(https://) store is sent with every request, and no other host is.
          - Their values are kept out of logs and results.
        type: dict
      client_cert:
        description:
          - A file with the certificate, in PEM form, that a V(https://) store is shown. On the host that runs the
            module.
        type: path
      client_key:
        description:
          - A file with the key of O(storage.client_cert), in PEM form and without a passphrase.
          - If not given, the key is in the certificate's file.
        type: path
      endpoint_url:
        description:
          - The URL of the S3 service, for every service but AWS; or of the service that a V(gs://) URL is asked for at.
          - With V(azblob://), the URL of the blob service, where the account's own is not to be used, for example
            V(https://blob.example.com/account).
          - If not given, the environment variables E(AWS_ENDPOINT_URL_S3) and E(AWS_ENDPOINT_URL) are used, for
            V(s3://) only.
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
      role_arn:
        description:
          - The ARN of a role to assume with the other credentials, or with O(storage.web_identity_token_file).
          - Its credentials are asked for again before they expire, however long an export takes.
          - If no credentials are given at all, the AWS SDK looks at the environment variables E(AWS_ROLE_ARN) and
            E(AWS_WEB_IDENTITY_TOKEN_FILE) itself.
        type: str
      role_session_name:
        description:
          - What the session of O(storage.role_arn) is called in the account's audit log. If not given, C(vmferry).
        type: str
      external_id:
        description:
          - The external id that the trust policy of O(storage.role_arn) asks for. It is not a secret and is not masked.
        type: str
      web_identity_token_file:
        description:
          - A file, on the host that runs the module, with the token of an identity provider that O(storage.role_arn)
            trusts. It takes the place of all other credentials, and is read again whenever they are renewed.
        type: path
      sts_endpoint_url:
        description:
          - The URL of the service that roles are assumed at. Servers other than AWS often have it at
            O(storage.endpoint_url).
          - If not given, the environment variable E(AWS_ENDPOINT_URL_STS) is used, or else that of AWS in
            O(storage.region).
        type: str
      anonymous:
        description:
          - Whether to send requests without any credentials, to read a bucket that is open to everybody.
          - Excludes all credentials, and ignores those of the environment.
        type: bool
        default: false
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
          - If not given, the environment variable E(AWS_CA_BUNDLE) is used for V(s3://), or else what the profile
            says, and E(REQUESTS_CA_BUNDLE) for Azure and V(gs://).
        type: path
      connect_timeout:
        description:
          - How long to wait for a connection, for example V(30s) or V(2m).
          - As long, the service may take nothing of what is sent to it.
          - A transfer does not wait longer than C(idle_timeout).
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
      storage_class:
        description:
          - For V(s3://), the storage class of what is uploaded in parts, which the images of an export are, for example
            V(STANDARD_IA) or V(GLACIER_IR). If not given, that is V(STANDARD). The small objects beside the images are
            V(STANDARD) always, since other classes cost more for them.
          - For V(s3://), V(GLACIER) and V(DEEP_ARCHIVE) are refused, since what is in them cannot be read at once. A
            lifecycle rule of the bucket may move old exports there.
          - For V(gs://), the storage class of all that is written, for example V(NEARLINE). If not given, the bucket's
            own.
        type: str
      request_payer:
        description:
          - V(requester) confirms that the requests are paid for by who sends them, which some buckets ask for.
        type: str
        choices:
          - requester
      use_accelerate_endpoint:
        description:
          - Whether to go through the AWS edge location that is nearest (S3 Transfer Acceleration). The bucket has to
            allow it.
          - Excludes O(storage.endpoint_url) and O(storage.addressing_style=path).
        type: bool
        default: false
      object_lock_mode:
        description:
          - Have the store lock every object of an export once that is complete, and what the modules
            M(vmferry.migrate.storage_upload) and M(vmferry.migrate.storage_copy) send. For V(s3://) only.
          - While the lock lasts, nobody can delete or change them with V(COMPLIANCE), and nobody without
            C(s3:BypassGovernanceRetention) with V(GOVERNANCE).
          - Needs O(storage.object_lock_retention) or O(storage.object_lock_retain_until), and a bucket that has object
            lock enabled.
          - The module M(vmferry.migrate.export_cleanup) keeps what is locked, whatever locked it.
        type: str
        choices:
          - GOVERNANCE
          - COMPLIANCE
      object_lock_retention:
        description:
          - For how long an export is locked, from its end on, for example V(30d).
        type: str
      object_lock_retain_until:
        description:
          - Until when an export is locked, as a time with its zone, for example V(2027-01-01T00:00:00Z).
        type: str
      object_lock_legal_hold:
        description:
          - Whether to put a legal hold on every object of an export. It lasts until somebody takes it off.
        type: bool
        default: false
      auth_kind:
        description:
          - How to sign in to Google Cloud Storage.
          - V(application) takes the machine's own credentials, as Google's libraries find them, from
            E(GOOGLE_APPLICATION_CREDENTIALS) to the metadata server. V(machineaccount) takes those of the metadata
            server. V(anonymous) sends none.
          - If not given, the environment variable E(GCP_AUTH_KIND) is used, unless the task gives another of Google's
            credentials; or else it follows from those, and is V(application) without any.
        type: str
        choices:
          - application
          - machineaccount
          - serviceaccount
          - accesstoken
          - anonymous
      service_account_file:
        description:
          - The JSON key of a Google service account, a file on the host that runs the module.
          - If not given, the environment variable E(GCP_SERVICE_ACCOUNT_FILE) is used, unless the task gives another of
            Google's credentials.
        type: path
      service_account_contents:
        description:
          - The JSON key of a Google service account itself, as text.
          - If not given, the environment variable E(GCP_SERVICE_ACCOUNT_CONTENTS) is used, unless the task gives
            another of Google's credentials.
        type: jsonarg
      access_token:
        description:
          - An OAuth access token of Google's. It is not renewed, so it has to outlive the task.
          - If not given, the environment variable E(GCP_ACCESS_TOKEN) is used, unless the task gives another of
            Google's credentials.
        type: str
      user_project:
        description:
          - The Google project to bill, for a bucket whose requesters pay.
        type: str
      kms_key_name:
        description:
          - The Cloud KMS key to encrypt with what is written to V(gs://), as
            C(projects/P/locations/L/keyRings/R/cryptoKeys/K). If not given, the bucket's own setting decides.
        type: str
      account_name:
        description:
          - The Azure storage account, for V(azblob://).
          - If not given, the environment variable E(AZURE_STORAGE_ACCOUNT) is used.
        type: str
      account_key:
        description:
          - A key of the Azure storage account.
          - If not given, the environment variable E(AZURE_STORAGE_KEY) is used, unless the task gives another
            credential of Azure.
        type: str
      sas_token:
        description:
          - A shared access signature for the container or the Azure storage account.
          - If not given, the environment variable E(AZURE_STORAGE_SAS_TOKEN) is used, unless the task gives another
            credential of Azure.
        type: str
      connection_string:
        description:
          - What Azure's portal calls a connection string. It says the account, the endpoint and a credential.
          - If not given, the environment variable E(AZURE_STORAGE_CONNECTION_STRING) is used, unless the task gives
            another credential of Azure, or names the account.
        type: str
      client_id:
        description:
          - The client id of a service principal of Microsoft Entra ID, or without O(storage.secret), of a user-assigned
            managed identity.
          - If not given, the environment variable E(AZURE_CLIENT_ID) is used, unless the task gives another credential
            of Azure.
        type: str
      secret:
        description:
          - The secret of the service principal O(storage.client_id).
          - If not given, the environment variables E(AZURE_CLIENT_SECRET) and E(AZURE_SECRET) are used, unless the task
            gives another credential of Azure.
        type: str
      tenant:
        description:
          - The tenant of the service principal O(storage.client_id).
          - If not given, the environment variables E(AZURE_TENANT_ID) and E(AZURE_TENANT) are used together with its
            secret, unless the task gives another credential of Azure.
        type: str
      auth_source:
        description:
          - Where a token of Microsoft Entra ID comes from.
          - V(auto) takes the credentials that are given, or else those of the Azure SDK's C(DefaultAzureCredential).
          - V(msi) takes the managed identity of the machine, and V(cli) who is logged in to Azure's command line.
        type: str
        choices:
          - auto
          - msi
          - cli
        default: auto
      cloud_environment:
        description:
          - The Azure cloud in which the account is, where the URL does not tell.
        type: str
        choices:
          - AzureCloud
          - AzureChinaCloud
          - AzureUSGovernment
        default: AzureCloud
      disable_instance_discovery:
        description:
          - Whether the authority that gives out tokens is trusted without Microsoft's confirming it, for a private
            cloud, whose authority the environment variable E(AZURE_AUTHORITY_HOST) names.
        type: bool
        default: false
      access_tier:
        description:
          - The access tier of Azure to write to. If not given, the account's own.
          - There is no V(archive), since what lies there can be read after hours only.
        type: str
        choices:
          - hot
          - cool
          - cold
      blob_type:
        description:
          - What kind of object Azure makes of what is sent. V(auto) makes page blobs of names that end in C(.vhd),
            since Azure makes managed disks of page blobs only, and block blobs of all others.
          - V(page) makes page blobs of everything that is sent by M(vmferry.migrate.storage_upload) and
            M(vmferry.migrate.storage_copy), whose size must be a multiple of 512 bytes then. Exports go with V(auto)
            and V(block) only; M(vmferry.migrate.vm_export) fails with V(page).
          - Zeros are not sent to a page blob, and not fetched from one. An access tier does not go with it.
        type: str
        choices:
          - auto
          - block
          - page
        default: auto
      file_mode:
        description:
          - The mode of files in a store that is a folder, as a quoted octal number. Folders get the same, and may be
            entered by whoever may read.
        type: raw
        default: '0600'
      file_owner:
        description:
          - The owner of files and folders in a store that is a folder, as a name or a number. If not given, the user
            that runs the module.
        type: str
      file_group:
        description:
          - The group of files and folders in a store that is a folder, as a name or a number. If not given, the group
            of the user that runs the module.
        type: str
      mount:
        description:
          - The mount point that a store which is a folder lies below. Nothing is written or read unless a file system
            is mounted there, and folders that are missing below it are made.
          - Without it, only the last folder of O(url) is made, and V(file://) is content with whatever file system the
            folder is on, even the one below a mount point that is not mounted.
          - V(nfs://folder) needs it, and is relative to it.
        type: path
      buffer_size:
        description:
          - How many bytes of a file in a store that is a folder may be written before they are flushed to its medium or
            its file server, for example V(8MiB). They are what a crash of the host can lose, and what its memory holds.
          - Less is found out earlier where there is no space; more is faster where flushing is slow.
        type: str
        default: 32MiB
requirements:
  - boto3 1.26 or newer, for V(s3://), on the host that runs the module
  - urllib3 1.26 or newer, for V(http://) and V(https://), on the host that runs the module
  - google-auth 2.0 or newer, requests and google-crc32c, for V(gs://), on the host that runs the module
  - azure-storage-blob 12.14 or newer, for V(azblob://), on the host that runs the module, and azure-identity where no
    account key, SAS or connection string is given
"""
