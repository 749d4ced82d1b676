# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operating system says about a path, in the words of a store."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import Iterator, Mapping, Protocol, Tuple

from ..._errors import Kind, VmferryError

_Meaning = Tuple[Kind, str, str]
_NO_SPACE: _Meaning = ("no_space", "there is no space left", "Free space or choose another storage URL.")
_QUOTA: _Meaning = ("quota", "the disk quota is used up", "Raise the quota or choose another storage URL.")
_DENIED: _Meaning = ("permission_denied", "permission was denied", "Run as a user who may use this folder.")
_LOST: _Meaning = ("network", "the file server lost the file handle", "Check the mount and the file server.")
_LINK: _Meaning = (
    "permission_denied",
    "a symbolic link or a file stands where a folder was expected",
    "Symbolic links below the storage URL are not followed, and a file holds no others: name the real folder.",
)
_MEANINGS: Mapping[int, _Meaning] = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _QUOTA,
    errno.EFBIG: ("no_space", "the file system does not hold files of this size", "Choose another file system."),
    errno.EROFS: ("permission_denied", "the file system is read-only", "Mount it writable."),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ELOOP: _LINK,
    errno.ENOTDIR: _LINK,
    errno.EISDIR: ("conflict", "a folder stands where a file was expected", ""),
    errno.EEXIST: ("conflict", "it exists already", ""),
    errno.ENOENT: (
        "not_found",
        "it does not exist",
        "See whether this file system can hold it, or correct the storage URL.",
    ),
    errno.ENAMETOOLONG: ("invalid_config", "the name is too long for the file system", ""),
    errno.ESTALE: _LOST,
    errno.ENOTCONN: _LOST,
    errno.EHOSTDOWN: _LOST,
    errno.ETIMEDOUT: ("timeout", "the file server did not answer in time", "Check the mount and the file server."),
    errno.EIO: ("internal", "the medium or the file server reported an input/output error", "See the kernel's log."),
}
_NO_ANSWER: _Meaning = (
    "network",
    "the file server did not answer, or answered with an input/output error",
    "Look at the file server. A mount with the option hard waits for it instead, one with soft gives up as here.",
)
_RETRYABLE = frozenset({errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EIO})


class Place(Protocol):
    @property
    def over_network(self) -> bool: ...


def translate(error: OSError, doing: str, *, over_network: bool = False) -> VmferryError:
    """`doing` names the verb and the URL: "Writing file:///backup/x"."""
    number = error.errno or 0
    kind, reason, hint = _MEANINGS.get(number, ("internal", error.strerror or type(error).__name__, ""))
    if number == errno.EIO and over_network:
        kind, reason, hint = _NO_ANSWER
    return VmferryError(kind, f"{doing} failed: {reason}.", hint, retryable=number in _RETRYABLE)


@contextmanager
def translated(doing: str, place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise translate(error, doing, over_network=place.over_network) from error


def too_short(url: str, size: int, end: int) -> VmferryError:
    return VmferryError("checksum_mismatch", f"{url} has {size} bytes; at least {end} were expected.")
