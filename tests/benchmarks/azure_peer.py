# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azure's own client, as people write it: `azure_peer.py upload|download CONNECTION_STRING CONTAINER NAME FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from azure.storage.blob import BlobClient

STREAMS = 4


def main(action: str, connection: str, container: str, name: str, file: str) -> None:
    with BlobClient.from_connection_string(connection, container, name) as blob:
        if action == "upload":
            with Path(file).open("rb") as source:
                blob.upload_blob(source, overwrite=True, max_concurrency=STREAMS)
        else:
            with Path(file).open("wb") as target:
                blob.download_blob(max_concurrency=STREAMS).readinto(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
