# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest export in a store, read back through its whole chain and compared leaf by leaf; a process of its own.

`verify_once.py URL STATE_DIR`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".build"))

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export


def main(url: str, state_dir: str) -> None:
    request = VerifyRequest(StoreSpec(url), level="content", transfer=TransferOptions(state_dir=state_dir))
    verify_export(request, check_mode=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
