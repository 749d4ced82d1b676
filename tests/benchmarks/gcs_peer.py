# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloud Storage's own client: `gcs_peer.py upload|download ENDPOINT BUCKET NAME FILE`.

Uploads are one stream: the emulator does not know the transfer manager's, which go by the XML API.
"""

from __future__ import annotations

import sys

from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client, transfer_manager

STREAMS = 4


def main(action: str, endpoint: str, bucket: str, name: str, file: str) -> None:
    client = Client("test", AnonymousCredentials(), client_options={"api_endpoint": endpoint})
    blob = client.bucket(bucket).blob(name)
    if action == "upload":
        blob.upload_from_filename(file)
    else:
        transfer_manager.download_chunks_concurrently(blob, file, max_workers=STREAMS)


if __name__ == "__main__":
    main(*sys.argv[1:])
