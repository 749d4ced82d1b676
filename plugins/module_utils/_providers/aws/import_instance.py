# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance made of the image of an import. EC2 starts whatever it makes.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..base import Placement
from .import_places import Places, network_request
from .import_waits import wait_for
from .session import Session
from .tags import tag_specification

STARTS_WITHIN = 900.0  # seconds
STOPS_WITHIN = 900.0  # seconds; EC2 cuts the power of a guest that does not react after some minutes


def instance_request(
    placement: Placement, image: str, kind: str, places: Places, tags: Mapping[str, str], token: str
) -> Dict[str, Any]:
    """`kind`: the instance type; `token`: by which EC2 knows a request that it had before."""
    asked: Dict[str, Any] = {
        "ImageId": image,
        "InstanceType": kind,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token,
        "TagSpecifications": [tag_specification("instance", tags), tag_specification("volume", tags)],
    }
    asked.update(network_request(places))
    if placement.key_name:
        asked["KeyName"] = placement.key_name
    if placement.iam_instance_profile:
        by = "Arn" if placement.iam_instance_profile.startswith("arn:") else "Name"
        asked["IamInstanceProfile"] = {by: placement.iam_instance_profile}
    return asked


def run_instance(session: Session, name: str, asked: Mapping[str, Any]) -> str:
    """The id of the instance."""
    with session.doing(f"Making the instance {name}"):
        return str(session.client("ec2").run_instances(**asked)["Instances"][0]["InstanceId"])


def wait_running(session: Session, flow: Flow, instance: str) -> None:
    """Raises `conflict` where AWS ends it again at once: it does so where a key or a limit of volumes is in its way."""
    _wait(session, flow, instance, "running", STARTS_WITHIN)


def stop(session: Session, flow: Flow, instance: str) -> None:
    with session.doing(f"Stopping {instance}"):
        session.client("ec2").stop_instances(InstanceIds=[instance])
    _wait(session, flow, instance, "stopped", STOPS_WITHIN)


def _wait(session: Session, flow: Flow, instance: str, wanted: str, limit: float) -> None:
    def look() -> Optional[bool]:
        with session.doing(f"Looking at {instance}"):
            pages = session.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"]
        found = [one for page in pages for one in page["Instances"]]
        state = found[0]["State"]["Name"] if found else "pending"
        if state in ("shutting-down", "terminated"):
            reason = found[0].get("StateReason", {})
            said = reason.get("Message") or reason.get("Code") or "it does not say why"
            hint = "Look at the keys that its volumes are encrypted with, and at the limits of the account."
            raise VmferryError("conflict", f"AWS ended {instance} again: {said}.", hint)
        return True if state == wanted else None

    wait_for(flow, look, limit, f"{instance} to be {wanted}")
