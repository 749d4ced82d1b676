# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A secret that a task has by value, in a file or from a command; on no command line, in no result, in no log.

The value is for what Ansible has already, as from a vault, an AWX credential or a lookup. The file and the command are
for what only the host has on which the module runs.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from .argspec import TaskArguments, invalid

LARGEST_SECRET = 64 * 1024  # bytes
COMMAND_TIMEOUT = 60.0  # seconds; who has to be asked at a terminal is not there
_LONGEST_COMPLAINT = 400  # characters of what a command says about its failure
_OTHERS = stat.S_IROTH | stat.S_IWOTH

Extent = Literal["line", "all"]  # a passphrase is one line; a key in PEM is all there is


def secret_options(name: str) -> dict[str, dict[str, Any]]:
    """`NAME`, `NAME_file` and `NAME_command`, for an argument specification or for the `options` of one."""
    return {
        name: {"type": "str", "no_log": True},
        f"{name}_file": {"type": "path", "no_log": False},  # a path, whatever it is called
        f"{name}_command": {"type": "list", "elements": "str", "no_log": False},
    }


def needed_secret(arguments: TaskArguments, name: str, extent: Extent = "line", within: str = "") -> bytes:
    """As `secret`, where one of the three must be there."""
    found = secret(arguments, name, extent, within)
    if found is None:
        full = _full(name, within)
        raise invalid(f"{full} is missing.", f"Set {full}, {full}_file or {full}_command.")
    return found


def secret(arguments: TaskArguments, name: str, extent: Extent = "line", within: str = "") -> bytes | None:
    """None where none of the three is there. `within`: the option that they are suboptions of, for messages.

    In UTF-8, and without the end of its last line, whoever wrote that; never empty. From here on it is masked
    in whatever the module tells.
    """
    forms = [form for form in (name, f"{name}_file", f"{name}_command") if arguments[form] not in (None, "", [])]
    full = _full(name, within)
    if len(forms) > 1:
        both = " and ".join(_full(form, within) for form in forms)
        raise invalid(f"{both} exclude each other.", "Say once where the secret is.")
    if not forms:
        if any(arguments[form] is not None for form in (name, f"{name}_file", f"{name}_command")):
            raise invalid(f"{full} is empty.", "A template may have found nothing. Leave the option out for no secret.")
        return None
    told = _full(forms[0], within)
    if forms[0] == name:
        found = _one_value(told, arguments[name].encode(errors="surrogatepass"), extent)
    elif forms[0] == f"{name}_file":
        found = _wanted(_of_file(told, arguments[forms[0]]), extent)
    else:
        found = _wanted(_of_command(told, arguments[forms[0]]), extent)
    if not found:
        raise invalid(f"{told} gave nothing.", "The secret is the text of it, without the end of its line.")
    try:
        arguments.conceal(found.decode())
    except UnicodeDecodeError:  # which quotes the secret
        raise invalid(f"{told} is not UTF-8.", "Write the secret in UTF-8, or in ASCII alone.") from None
    return found


def _full(name: str, within: str) -> str:
    return f"{within}.{name}" if within else name


def _wanted(text: bytes, extent: Extent) -> bytes:
    """Also of what was written on Windows."""
    return text.rstrip(b"\r\n") if extent == "all" else text.partition(b"\n")[0].rstrip(b"\r")


def _one_value(option: str, text: bytes, extent: Extent) -> bytes:
    """What has more lines than one was not meant as one, and half a passphrase would be a weak one."""
    wanted = text.rstrip(b"\r\n")
    if extent == "line" and b"\n" in wanted:
        raise invalid(f"{option} has several lines.", "It is one line. In YAML, write it in quotes.")
    return wanted


def _of_file(option: str, path: str) -> bytes:
    """Refused, not warned about, where everybody may read it: nobody reads the warnings of a nightly job. The group
    may, since that is how containers are given their secrets."""
    try:
        # Without waiting, where it is a pipe that nobody writes to.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise invalid(
            f"{option} {path} cannot be read: {error.strerror}.",
            "It is a file on the host that runs the module, for the user that runs it.",
        ) from error
    with os.fdopen(number, "rb") as file:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            raise invalid(f"{option} {path} is not a file.", f"Name a file, or use a command instead of {option}.")
        if found.st_mode & _OTHERS:
            raise invalid(
                f"{option} {path} can be read or written by everybody on the host.",
                f"Make it the owner's alone: chmod 600 {Path(path).name}",
            )
        return _not_too_long(option, file.read(LARGEST_SECRET + 1))


def _not_too_long(option: str, text: bytes) -> bytes:
    if len(text) > LARGEST_SECRET:
        raise invalid(f"{option} gives more than {LARGEST_SECRET // 1024} KiB.", "No secret is as long as that.")
    return text


def _of_command(option: str, words: list[str]) -> bytes:
    """Run without a shell and without input. What it prints is never told, what it complains about is."""
    try:
        running = subprocess.Popen(  # pylint: disable=ansible-bad-function
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that what it starts ends with it
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise invalid(
            f"{option} cannot be run: {words[0]}: {reason}.",
            "It is a list of words, the first of them a program on the host that runs the module; no shell reads it.",
        ) from error
    with running:
        try:
            output, complaint = running.communicate(timeout=COMMAND_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            _end(running)
            raise invalid(
                f"{option} did not end within {COMMAND_TIMEOUT:g} seconds.",
                f"It has no terminal and no input; see what {words[0]} waits for.",
            ) from error
        except BaseException:
            _end(running)
            raise
    if running.returncode != 0:
        told = _without(complaint.decode(errors="replace").strip(), output)[-_LONGEST_COMPLAINT:]
        raise invalid(
            f"{option} failed with exit code {running.returncode}: {told or 'it did not say why'}",
            f"Run {words[0]} as the user that runs the module, on the host that runs it.",
        )
    return _not_too_long(option, output)


def _without(complaint: str, output: bytes) -> str:
    """As far as it was printed, the secret may stand in the complaints, too: of a script with `set -x`, for example."""
    for line in output.decode(errors="replace").splitlines():
        if line.strip():
            complaint = complaint.replace(line.strip(), "********")
    return complaint


def _end(running: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
