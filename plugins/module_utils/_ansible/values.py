# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as people write them, made into bytes and seconds; what cannot be read is told with the option's name."""

from __future__ import annotations

import re
from typing import Any, Callable, Mapping, Sequence, TypeVar

from .._errors import VmferryError
from .._transfer.record import JOB_ID
from .._transfer.timetable import parse_timetable
from .._transfer.units import parse_duration, parse_size
from .argspec import invalid

T = TypeVar("T")


def duration(option: str, text: str, hint: str = "Write for example 90s, 12h or 30d.") -> float:
    """Seconds, more than 0."""
    seconds = _read(option, text, parse_duration)
    if seconds <= 0:
        raise invalid(f"{option} is {text}; it must be more than 0.", hint)
    return seconds


def optional_duration(option: str, text: str | None) -> float | None:
    return None if text is None else duration(option, text)


def duration_or_zero(option: str, text: str) -> float:
    """Seconds; 0 switches off what they would limit."""
    return 0.0 if _read(option, text, parse_duration) == 0 else duration(option, text)


def progress_interval(text: str) -> float:
    """Seconds, more than 0: as often as possible would be a line for each look, which nobody means."""
    return duration("progress_interval", text, "Write for example 5s, or progress: none to have no lines.")


def vm_name(option: str, text: str) -> str:
    """Not empty, as a template's is where it found nothing."""
    if not text:
        raise invalid(f"{option} is empty; it names a VM.", "List the VMs that are there with vmferry.migrate.vm_info.")
    return text


LONGEST_LABEL = 256  # characters of a name or a tag


def label(option: str, text: str | None) -> str:
    """What is kept in a manifest to find an export by; '' where it was left out."""
    text = text or ""
    if len(text) > LONGEST_LABEL or not text.isprintable():
        raise invalid(f"{option} is longer than {LONGEST_LABEL} characters, or not all of it is text.", "Shorten it.")
    return text


def count(option: str, number: int, least: int) -> int:
    if number < least:
        raise invalid(f"{option} is {number}; it must be at least {least}.", "Leave it out for the default.")
    return number


def size(option: str, text: str) -> int:
    """Bytes, more than 0."""
    count = _read(option, text, parse_size)
    if count <= 0:
        raise invalid(f"{option} is {text}; it must be more than 0.", "Write for example 512KiB or 10MiB.")
    return count


def mebibytes(option: str, text: str) -> int:
    """At least one, and whole ones."""
    count = size(option, text)
    if count % (1 << 20):
        raise invalid(f"{option} is {text}, which is no whole number of MiB.", "Write for example 512MiB or 4GiB.")
    return count >> 20


LARGEST_PART = 512 * 1024 * 1024


def part_size(option: str, text: str | None) -> int | None:
    """Bytes; None where it was left out."""
    if text is None:
        return None
    count = size(option, text)
    if count > LARGEST_PART:
        raise invalid(f"{option} is {text}; it is 512MiB at most.", "Three parts are held in memory at a time.")
    return count


def checksum(option: str, text: str | None) -> str:
    """SHA-256 in small hex, '' where it was left out; as in `ansible.builtin.get_url`, it may say which it is."""
    digest = (text or "").strip().lower()
    digest = digest[len("sha256:") :] if digest.startswith("sha256:") else digest
    if text is not None and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise invalid(
            f"{option} is {text!r}, which is no SHA-256.", "It is 64 hexadecimal digits, after sha256: or not."
        )
    return digest


def file_mode(option: str, value: Any) -> int:
    """As in `ansible.builtin.file`: text is octal, and a number is what YAML made of an octal one."""
    try:
        mode = value if isinstance(value, int) and not isinstance(value, bool) else int(str(value), 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise invalid(f"{option} is {value!r}, which is not the mode of a file.", "Write it in quotes, like '0600'.")
    return mode


def job_id(option: str, text: str | None) -> str:
    """'' for None. A job's id is part of file names."""
    if text is not None and not JOB_ID.fullmatch(text):
        raise invalid(
            f"{option} is {text!r}, not the id of a job.", "It is 8 to 64 letters, digits and dashes, as a UUID is."
        )
    return text or ""


def bandwidth(option: str, text: str) -> str:
    """The text, once it is known to be a rate or a timetable of rates."""
    _read(option, text, parse_timetable)
    return text


def regular_expression(option: str, text: str | None) -> str:
    """'' for None. One that some text fits."""
    try:
        re.compile(text or "")
    except re.error as error:
        raise invalid(f"{option} is {text!r}, which is no regular expression: {error}.", "See Python's re.") from error
    return text or ""


def network_names(option: str, given: Sequence[str] | None) -> tuple[str, ...] | None:
    if given is not None and not all(given):
        raise invalid(f"{option} has an empty name.", "List names of networks, or write [] for none.")
    return None if given is None else tuple(given)


def name_map(option: str, given: Mapping[str, Any] | None) -> dict[str, str]:
    for name, value in (given or {}).items():
        if not isinstance(value, str) or not value:
            raise invalid(f"{option} maps {name!r} to {value!r}, which is not a name.", "Map names to names.")
    return dict(given or {})


def _read(option: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except VmferryError as error:
        raise invalid(f"{option}: {error.message}", error.hint) from error
