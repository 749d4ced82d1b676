# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of an export from looking at it again, in an object beside its manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Mapping

from .._errors import VmferryError
from .catalog import CatalogEntry, Shelf
from .fields import PLAIN_NAME, Fields
from .naming import iso_time, parse_iso_time

VERIFIED = "verified.json"
LEVELS = ("manifest", "stored", "content", "boot")  # each proves more than those before it
_LIMIT = 1 << 20  # bytes; what we write has a few hundred, and a line for each disk


@dataclass(frozen=True)
class Pass:
    at: float  # seconds since the epoch
    job_id: str


@dataclass(frozen=True)
class Failure:
    level: str
    at: float
    job_id: str
    problems: int
    damaged: bool = True  # False: all that is wrong is that it did not boot


@dataclass(frozen=True)
class Verifications:
    """The newest pass of each level, and a failure that no later pass has put right. `files`: SHA-256 of whole images,
    by path, taken when they were seen to be what was sent.
    """

    passed: Mapping[str, Pass] = field(default_factory=dict)
    failed: Failure | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def with_pass(self, level: str, at: float, job_id: str, files: Mapping[str, str]) -> Verifications:
        """A failure stays until its level, or a higher one, passes: a look at the manifest repairs no image."""
        failed = self.failed
        if failed is not None and LEVELS.index(level) >= LEVELS.index(failed.level):
            failed = None
        elif failed is not None and level == "content":
            failed = replace(failed, damaged=False)
        passed = {**self.passed, level: Pass(at, job_id)}
        return Verifications(passed, failed, {**self.files, **files})

    def with_failure(self, level: str, at: float, job_id: str, problems: int, damaged: bool = True) -> Verifications:
        """Nothing that passed before counts any more."""
        if self.failed is not None:
            level = max(level, self.failed.level, key=LEVELS.index)
            damaged = damaged or self.failed.damaged
        return Verifications({}, Failure(level, at, job_id, problems, damaged), {})

    @property
    def damage(self) -> str:
        """A sentence without its end, or ''. A guest that did not boot is no damage: its disks are what was sent."""
        one = self.failed
        if one is None or not one.damaged:
            return ""
        return f"a verification ({one.level}) found it damaged at {iso_time(one.at)}, and none has passed since"

    def newest(self, level: str) -> float:
        """When this level, or a higher one, last passed; 0 where none did, or where a failure stands."""
        if self.failed is not None:
            return 0.0
        enough = LEVELS[LEVELS.index(level) :]
        return max((self.passed[name].at for name in enough if name in self.passed), default=0.0)

    def to_json(self) -> bytes:
        document: dict[str, Any] = {
            "passed": [
                {"level": level, "verified_at": iso_time(one.at), "job_id": one.job_id}
                for level, one in sorted(self.passed.items(), key=lambda item: LEVELS.index(item[0]))
            ],
            "failed": [],
            "files": dict(self.files),
        }
        if self.failed is not None:
            one = self.failed
            document["failed"] = [
                {
                    "level": one.level,
                    "verified_at": iso_time(one.at),
                    "job_id": one.job_id,
                    "problems": one.problems,
                    "damaged": one.damaged,
                }
            ]
        return json.dumps(document, indent=1).encode() + b"\n"

    def as_result(self) -> dict[str, Any]:
        """`last_verified` of a result: a failure that stands, or else the newest pass, and of two the higher."""
        newest = max(self.passed, key=lambda level: (self.passed[level].at, LEVELS.index(level)), default="")
        at = self.failed.at if self.failed else self.passed[newest].at if newest else None
        return {
            "at": "" if at is None else iso_time(at),
            "level": self.failed.level if self.failed else newest,
            "passed": self.failed is None and bool(newest),
            "problems": self.failed.problems if self.failed else 0,
            "levels": {level: iso_time(self.passed[level].at) if level in self.passed else "" for level in LEVELS},
        }


def read_verifications(shelf: Shelf, entry: CatalogEntry) -> Verifications:
    """None at all where there is no such object, or where somebody else wrote what is there."""
    key = entry.key(VERIFIED)
    try:
        said = Fields.parse(shelf.get(key, _LIMIT), shelf.object_url(key))
        failed = [_failure(one) for one in said.objects("failed")]
        return Verifications(
            {_level(one): Pass(_time(one), one.text("job_id")) for one in said.objects("passed")},
            failed[0] if failed else None,
            _files(said.object("files")),
        )
    except VmferryError as error:
        if error.kind in ("not_found", "invalid_config"):
            return Verifications()
        raise


def _failure(one: Fields) -> Failure:
    return Failure(_level(one), _time(one), one.text("job_id"), one.number("problems"), one.truth("damaged", True))


def _level(one: Fields) -> str:
    return one.one_of("level", *LEVELS)


def _time(one: Fields) -> float:
    try:
        return parse_iso_time(one.text("verified_at"))
    except ValueError as error:
        raise one.lie("has no time") from error


def _files(files: Fields) -> dict[str, str]:
    return {path: files.hex(path, 64) for path in files.all() if PLAIN_NAME.fullmatch(path)}
