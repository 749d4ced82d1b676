# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./dev bench [GROUP] [--runs N] [--json FILE]`: figures against peers run in turn; status 1 if a target is missed."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / ".build")]

from benchmarks import aws, export, fleet, formats, incremental, stores, vsphere
from benchmarks.measure import Figure

GROUPS = {
    "aws": aws.measure,
    "export": export.measure,
    "fleet": fleet.measure,
    "formats": formats.measure,
    "incremental": incremental.measure,
    "stores": stores.measure,
    "vsphere": vsphere.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("group", nargs="?", choices=sorted(GROUPS))
    parser.add_argument("--runs", type=int, default=5, help="of each command, after one that does not count")
    parser.add_argument("--json", type=Path, help="write the figures there")
    wanted = parser.parse_args()
    figures: list[Figure] = []
    for name in [wanted.group] if wanted.group else sorted(GROUPS):
        with tempfile.TemporaryDirectory(prefix="vmferry-bench-") as folder:
            for figure in GROUPS[name](Path(folder), wanted.runs):
                figures.append(figure)
                print(figure.line(), flush=True)
    if wanted.json:
        wanted.json.write_text(json.dumps([figure.as_dict() for figure in figures], indent=1) + "\n")
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
