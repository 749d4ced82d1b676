# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy has to allow for a request, which is more than its name says.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html, list_amazons3.html and
list_amazonelasticblockstore.html; https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
"""

from __future__ import annotations

from urllib.parse import parse_qs

_OF_BUCKETS = {
    "location": "GetBucketLocation",
    "encryption": "GetEncryptionConfiguration",
    "versioning": "GetBucketVersioning",
    "acl": "GetBucketAcl",
    "uploads": "ListBucketMultipartUploads",
}
_OF_OBJECTS = {
    "GET": "GetObject",
    "HEAD": "GetObject",
    "PUT": "PutObject",
    "POST": "PutObject",
    "DELETE": "DeleteObject",
}


def needed(service: str, operation: str, path: str, query: str, body: bytes) -> set[str]:
    """As policies name actions; `body`: of a request to EC2, a form."""
    if service == "s3":
        return {f"s3:{_action_of_s3(operation, path, query)}"}
    found = {f"{service}:{operation}"}
    if service == "ec2":
        asked = parse_qs(body.decode(errors="replace"))
        if any(name.startswith("TagSpecification.") for name in asked):
            found.add("ec2:CreateTags")
        if any(name.startswith("IamInstanceProfile.") for name in asked):
            found.add("iam:PassRole")
    return found


def _action_of_s3(method: str, path: str, query: str) -> str:
    """`path`: with the bucket first."""
    words = parse_qs(query, keep_blank_values=True)
    if path.strip("/").count("/"):
        return "AbortMultipartUpload" if method == "DELETE" and "uploadId" in words else _OF_OBJECTS[method]
    return next((action for word, action in _OF_BUCKETS.items() if word in words), "ListBucket")
