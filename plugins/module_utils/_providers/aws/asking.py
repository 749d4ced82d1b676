# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of EC2 about many things at once: every page of it, for so many of them as one filter takes."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Sequence

from .session import Session

Filter = Dict[str, Any]

VALUES = 200  # of one filter, at the most: DescribeInstances, "Filter.N.Value"
# By the operation that is paged: the key of its answers, and how many it tells at once, at the most.
_PAGED = {
    "describe_instances": ("Reservations", 1000),
    "describe_instance_types": ("InstanceTypes", 100),
    "describe_instance_type_offerings": ("InstanceTypeOfferings", 1000),
    "describe_volumes": ("Volumes", 500),
    "describe_snapshots": ("Snapshots", 1000),
    "describe_images": ("Images", 1000),
    "describe_export_image_tasks": ("ExportImageTasks", 500),
    "describe_export_tasks": ("ExportTasks", 500),  # which AWS tells as a whole
    "describe_import_snapshot_tasks": ("ImportSnapshotTasks", 500),
}


def every(session: Session, operation: str, doing: str, filters: Sequence[Filter], **more: Any) -> List[Any]:
    """All that fit, from all pages. `more`: other parameters of the operation."""
    key, page = _PAGED[operation]
    asked = {"Filters": list(filters), **more}
    with session.doing(doing):
        client = session.client("ec2")
        if not client.can_paginate(operation):  # DescribeImages in old boto3, which EC2 answers as a whole then
            return list(getattr(client, operation)(**asked).get(key) or ())
        answers = client.get_paginator(operation).paginate(PaginationConfig={"PageSize": page}, **asked)
        return [one for answer in answers for one in answer.get(key) or ()]


def every_of(session: Session, operation: str, doing: str, name: str, values: Sequence[str], **more: Any) -> List[Any]:
    """All that have one of these values of a filter. Nothing is asked where there are none."""
    parts = (values[start : start + VALUES] for start in range(0, len(values), VALUES))
    return [one for part in parts for one in every(session, operation, doing, [of(name, part)], **more)]


def instances(session: Session, doing: str, filters: Sequence[Filter]) -> List[Any]:
    """In whichever state, also those that are gone, which EC2 tells of for an hour."""
    return list(_in(every(session, "describe_instances", doing, filters)))


def instances_of(session: Session, doing: str, name: str, values: Sequence[str]) -> List[Any]:
    return list(_in(every_of(session, "describe_instances", doing, name, values)))


def of(name: str, values: Sequence[str]) -> Filter:
    return {"Name": name, "Values": list(values)}


def literal(text: str) -> str:
    """A value for a filter that stands for itself alone: `*` and `?` stand for others there."""
    return "".join(f"\\{sign}" if sign in "*?\\" else sign for sign in text)


def _in(reservations: Sequence[Any]) -> Iterator[Any]:
    return (instance for reservation in reservations for instance in reservation.get("Instances") or ())
