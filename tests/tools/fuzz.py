# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./dev fuzz`: random damage at every reader of what others write, for as long as somebody likes.

What fails is shrunk, printed, and tried first by the next run.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / ".build"), str(ROOT / "tests")]
FOUND = ROOT / ".cache" / "fuzz"
ROUND = 300  # examples, after which the clock is looked at


def main() -> int:
    from engine.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all of them, or some: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (%(default).0f)")
    parser.add_argument("--seed", type=int, help="where the examples begin; of a run that is to be repeated")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    first = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"--seed {first}", flush=True)
    broken = [name for name in options.targets or TARGETS if not _holds(name, options.seconds, first)]
    if broken:
        print(f"\n{', '.join(broken)}: found something; the next run tries it first.", flush=True)
    return 1 if broken else 0


def _holds(name: str, seconds: float, first: int) -> bool:
    from engine.fuzz.targets import fuzz
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis.database import DirectoryBasedExampleDatabase

    how = settings(
        max_examples=ROUND,
        deadline=None,
        database=DirectoryBasedExampleDatabase(FOUND / name),
        suppress_health_check=list(HealthCheck),
        phases=(Phase.reuse, Phase.generate, Phase.shrink),
        print_blob=True,
    )
    until, rounds = time.monotonic() + seconds, 0
    while rounds == 0 or time.monotonic() < until:
        try:
            fuzz(name, how, first + rounds)
        except Exception:  # noqa: BLE001  # whatever it is, it is the find
            import traceback

            traceback.print_exc()
            print(f"{name}: BROKEN in round {rounds}", flush=True)
            return False
        rounds += 1
    print(f"{name}: about {rounds * ROUND} examples, none broke it", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
