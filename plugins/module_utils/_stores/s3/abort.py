# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of an upload that nothing is to come of.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html
"""

from __future__ import annotations

import time

from ..._errors import VmferryError
from .bucket import Bucket

_ABORTS = 20  # parts that were under way when an upload was aborted may land afterwards and have to be aborted again
_ABORT_PAUSE = 0.25  # seconds


def abort_upload(bucket: Bucket, key: str, upload_id: str) -> None:
    """Returns when the server knows the upload no more."""
    upload = {**bucket.at(key), "UploadId": upload_id}
    for _unused in range(_ABORTS):
        try:
            with bucket.doing("Aborting the upload of", key):
                bucket.client.abort_multipart_upload(**upload)
                bucket.client.list_parts(**upload, MaxParts=1)
        except VmferryError as error:
            if error.kind == "not_found":
                return
            raise
        time.sleep(_ABORT_PAUSE)
    raise VmferryError(
        "conflict",
        f"The upload of {bucket.url}/{key} keeps coming back although it was aborted.",
        "Another process is still sending parts of it.",
        retryable=True,
    )
