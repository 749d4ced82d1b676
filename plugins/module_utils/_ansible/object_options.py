# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which object of a store a task means."""

from __future__ import annotations

import os
import re
from typing import Any, Mapping

from .._operations.jobs.storage_requests import CopyRequest, DownloadRequest, ObjectSpec, UploadRequest
from .._stores.address import address
from .._stores.keys import check_key, check_prefix
from .argspec import ArgumentSpec, TaskArguments, invalid, without_unset
from .storage_options import storage_arguments, store_at, store_spec
from .transfer_options import transfer_options
from .values import checksum, duration_or_zero, file_mode

_METADATA_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def object_arguments() -> ArgumentSpec:
    return ArgumentSpec({"key": {"type": "str", "no_log": False}})


def object_spec(arguments: TaskArguments) -> ObjectSpec:
    """By `key` below `url`; without it, `url` is the object's own."""
    not_empty(arguments, "key")
    url, key = address(arguments["url"], arguments.text("key"))
    return ObjectSpec(store_at(url, arguments), key)


def not_empty(arguments: TaskArguments, option: str) -> str:
    """'' where it was left out. One that is empty came from a template that found nothing."""
    if arguments[option] == "":
        raise invalid(f"{option} is empty.", "Leave it out, or name what is meant.")
    return arguments.text(option)


def one_or_many(arguments: TaskArguments) -> tuple[str, str]:
    """`key` and `prefix`, of which one at most is given."""
    key, prefix = not_empty(arguments, "key"), check_prefix(arguments.text("prefix"))
    if key and prefix:
        raise invalid("key and prefix are both set.", "Set key for one object, or prefix for all that begin with it.")
    return key, prefix


def overwrite_arguments(resume_window: str | None = None) -> ArgumentSpec:
    """`resume_window`: its default, where that does not depend on the store."""
    window: dict[str, Any] = {"type": "str"}
    return ArgumentSpec(
        {
            "overwrite": {"type": "str", "choices": ["never", "different", "always"], "default": "different"},
            "resume_window": window if resume_window is None else {**window, "default": resume_window},
        }
    )


def _resume_window(arguments: TaskArguments) -> float | None:
    given = arguments["resume_window"]
    return None if given is None else duration_or_zero("resume_window", given)


def download_request(arguments: TaskArguments) -> DownloadRequest:
    access = {
        "mode": file_mode("mode", arguments["mode"]),
        "owner": arguments["owner"],
        "group": arguments["group"],
    }
    return DownloadRequest(
        source=object_spec(arguments),
        dest=not_empty(arguments, "dest"),
        checksum=checksum("checksum", arguments["checksum"]),
        overwrite=arguments["overwrite"],
        access=without_unset(access),
        resume_window=_resume_window(arguments),
        transfer=transfer_options(arguments),
    )


def upload_request(arguments: TaskArguments) -> UploadRequest:
    return UploadRequest(
        store=store_spec(arguments),
        src=_paths(arguments["src"]),
        key=not_empty(arguments, "key"),
        vm=not_empty(arguments, "vm"),
        checksum=checksum("checksum", arguments["checksum"]),
        metadata=_metadata(arguments["metadata"]),
        overwrite=arguments["overwrite"],
        keep_source=arguments["keep_source"],
        read_back=arguments["verify"] == "stored",
        resume_window=_resume_window(arguments),
        transfer=transfer_options(arguments),
    )


def _paths(given: Any) -> tuple[str, ...]:
    """A text is one path, with all its commas: names have some."""
    paths = (given,) if isinstance(given, str) else given
    if not isinstance(paths, (list, tuple)) or not paths or not all(isinstance(one, str) and one for one in paths):
        raise invalid(
            f"src is {given!r}, which is neither a path nor a list of paths.", "Name files, folders or globs."
        )
    return tuple(os.path.expanduser(one) for one in paths)  # noqa: PTH111  # as Ansible does with a path


def _metadata(given: Mapping[str, Any] | None) -> Mapping[str, str] | None:
    for name, value in (given or {}).items():
        if not _METADATA_NAME.fullmatch(str(name)) or name.startswith("vmferry-"):
            raise invalid(
                f"metadata has {name!r}, which not every store takes for a name.",
                "Names are made of a-z, 0-9 and '-', and do not begin with vmferry-.",
            )
        if not isinstance(value, (str, int, float)) or isinstance(value, bool) or not str(value).isprintable():
            raise invalid(f"metadata.{name} is {value!r}, which is no text of one line.", "Write it in quotes.")
    return None if given is None else {name: str(value) for name, value in given.items()}


def ends_arguments() -> ArgumentSpec:
    """The two ends of a copy, each a store with its settings."""
    source = storage_arguments().merge(object_arguments(), ArgumentSpec({"prefix": {"type": "str"}}))
    destination = storage_arguments().merge(object_arguments())
    return ArgumentSpec(
        {
            "source": {"type": "dict", "required": True, "options": source.options},
            "destination": {"type": "dict", "required": True, "options": destination.options},
        }
    )


def copy_request(arguments: TaskArguments) -> CopyRequest:
    source, destination = arguments.below("source"), arguments.below("destination")
    key, prefix = one_or_many(source)
    several = source["prefix"] is not None
    url, key = (source["url"], "") if several else address(source["url"], key)
    new_key, wanted = not_empty(destination, "key"), checksum("checksum", arguments["checksum"])
    if several and (new_key or wanted):
        raise invalid(
            f"{'destination.key' if new_key else 'checksum'} is of one object, and source.prefix of several.",
            "Name one object by source.key, or leave it out.",
        )
    return CopyRequest(
        source=store_at(url, source),
        destination=store_spec(destination),
        key=key,
        prefix=prefix,
        new_key=check_key(new_key) if new_key else "",
        checksum=wanted,
        overwrite=arguments["overwrite"],
        relay=arguments["transfer"] == "relay",
        read_back=arguments["verify"] == "stored",
        resume_window=_resume_window(arguments),
        transfer=transfer_options(arguments),
    )
