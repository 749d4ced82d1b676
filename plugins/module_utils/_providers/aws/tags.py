# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tags by which what we made on AWS is known: whose work it is, and what it is of.

Everything that we make carries them from the very call that makes it, so that nothing of a killed run is lost.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

from ..job import Job

NAME = "Name"  # the one that people see
PREFIX = "vmferry:"
JOB = "vmferry:job"
ATTEMPT = "vmferry:attempt"
CHAIN = "vmferry:chain"
EXPORT = "vmferry:export"
STATE = "vmferry:state"
VM = "vmferry:vm"  # the id of the instance that it is of
DISK = "vmferry:disk"
# Of a set of snapshots that a task asked for: its name, how many belong to it, and the instance's power state then.
SNAPSHOT = "vmferry:snapshot"
DISKS = "vmferry:disks"
POWER = "vmferry:power"
STAGING = "vmferry:staging"  # of snapshots that a task of AWS exports: where in S3 it writes
TASK = "vmferry:task"  # beside it: which kind of task that is, where it is not one that exports an image
LONGEST_VALUE = 256  # characters of Unicode


def of_job(job: Job) -> Dict[str, str]:
    """Whose work it is. The chain only where the job has one."""
    said = {JOB: job.job_id, ATTEMPT: job.attempt, CHAIN: job.chain}
    return {key: value for key, value in said.items() if value}


def tag_list(tags: Mapping[str, str]) -> List[Dict[str, str]]:
    """As `StartSnapshot`, `CreateTags` and the like take them. Values that are too long are cut."""
    return [{"Key": key, "Value": value[:LONGEST_VALUE]} for key, value in tags.items()]


def tag_specification(kind: str, tags: Mapping[str, str]) -> Dict[str, Any]:
    """As EC2's calls take it that make something of this kind, such as `snapshot`, `image`, `instance` or `volume`."""
    return {"ResourceType": kind, "Tags": tag_list(tags)}


def tags_of(described: Mapping[str, Any]) -> Dict[str, str]:
    """Of anything that EC2 or EBS described."""
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags") or ()}
