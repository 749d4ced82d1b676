# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A transfer that is killed leaves no half object, and the next run goes on with what it had sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import ObjectInfo
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.copy_objects import copy_objects
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.download_object import download_object
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    JobRequest,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import (
    CopyRequest,
    DownloadRequest,
    ObjectSpec,
    UploadRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.upload_files import upload_files
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3 import copy as s3_copy
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import failpoints

from .objects_rig import Places, each_kind, opened

MIB = 1024 * 1024
MODULE = "ansible_collections.vmferry.migrate.plugins.modules"


@cache
def content() -> bytes:
    """Three parts."""
    return Random(11).randbytes(17 * MIB)


def killed(module: str, failpoint: str, spec: StoreSpec, state: Path, **arguments: object) -> None:
    storage = dict(spec.settings)
    task = {"url": spec.url, "storage": storage, "state_dir": str(state), "parallel": 1, **arguments}
    dies(["-m", f"{MODULE}.{module}"], failpoint, task)


def dies(program: list[str], failpoint: str, task: dict[str, object]) -> None:
    done = subprocess.run(
        [sys.executable, *program],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": task}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), failpoints.VARIABLE: failpoint},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


@each_kind
@pytest.mark.parametrize("failpoint", ["object-part-sent", "object-complete"])
def test_an_upload_that_is_killed_is_gone_on_with(kind: str, failpoint: str, places: Places, tmp_path: Path) -> None:
    spec, src, state = places(kind), tmp_path / "a.img", tmp_path / "state"
    src.write_bytes(content())
    killed("storage_upload", failpoint, spec, state, src=str(src))
    with opened(spec) as store:
        assert list(store.list("")) == []
    done = upload_files(
        UploadRequest(spec, (str(src),), transfer=TransferOptions(state_dir=str(state), parallel=1)), False
    )
    (row,) = done["files"]
    assert row["bytes_kept"] == (8 * MIB if failpoint == "object-part-sent" else len(content()))
    with opened(spec) as store:
        assert store.get("a.img") == content()
        assert store.abort_uploads("", lambda info: True) == 0


@each_kind
@pytest.mark.parametrize("failpoint", ["object-part-sent", "object-complete"])
def test_a_download_that_is_killed_is_gone_on_with(kind: str, failpoint: str, places: Places, tmp_path: Path) -> None:
    spec, dest, state = places(kind), tmp_path / "here.img", tmp_path / "state"
    with opened(spec) as store:
        store.put("a.img", content())
    killed("storage_download", failpoint, spec, state, key="a.img", dest=str(dest))
    assert not dest.exists()
    request = DownloadRequest(
        ObjectSpec(spec, "a.img"), str(dest), transfer=TransferOptions(state_dir=str(state), parallel=1)
    )
    done = download_object(request, False)
    assert done["bytes_kept"] == (8 * MIB if failpoint == "object-part-sent" else len(content()))
    assert dest.read_bytes() == content()
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["here.img"]


@each_kind
def test_an_upload_that_is_killed_once_its_object_is_there_leaves_it_there(
    kind: str, places: Places, tmp_path: Path
) -> None:
    spec, src, state = places(kind), tmp_path / "a.img", tmp_path / "state"
    src.write_bytes(content())
    killed("storage_upload", "object-in-place", spec, state, src=str(src))
    with opened(spec) as store:
        assert store.get("a.img") == content()
    request = UploadRequest(spec, (str(src),), transfer=TransferOptions(state_dir=str(state), parallel=1))
    upload_files(request, False)
    src.write_bytes(content()[::-1])  # another file by now: what the journal tells fits it no more
    upload_files(request, False)
    with opened(spec) as store:
        assert store.get("a.img") == content()[::-1]
        assert store.abort_uploads("", lambda info: True) == 0


@each_kind
def test_a_download_that_is_killed_once_its_file_is_there_leaves_it_there(
    kind: str, places: Places, tmp_path: Path
) -> None:
    spec, dest, state = places(kind), tmp_path / "here.img", tmp_path / "state"
    with opened(spec) as store:
        store.put("a.img", content())
    killed("storage_download", "object-in-place", spec, state, key="a.img", dest=str(dest))
    assert dest.read_bytes() == content()
    transfer = TransferOptions(state_dir=str(state), parallel=1)
    download_object(DownloadRequest(ObjectSpec(spec, "a.img"), str(dest), transfer=transfer), False)
    assert dest.read_bytes() == content()
    assert [one.name for one in tmp_path.iterdir() if one.suffix == ".part"] == []


COPYING = f"""
import {MODULE.replace("modules", "module_utils._stores.s3.copy")} as s3_copy, {MODULE}.storage_copy as storage_copy
s3_copy.AT_ONCE = {5 * MIB}
storage_copy.main()
"""


def killed_copy(places: Places, state: Path, failpoint: str) -> CopyRequest:
    """By the server, and how it is asked for again."""
    one, other = places("s3"), places("s3")
    with opened(one) as store:
        store.put("a.img", content())
    ends = {"source": (one, {"key": "a.img"}), "destination": (other, {})}
    stores = {name: {"url": spec.url, "storage": dict(spec.settings), **key} for name, (spec, key) in ends.items()}
    dies(["-c", COPYING], failpoint, {**stores, "state_dir": str(state)})
    with opened(other) as store:
        assert list(store.list("")) == []
    return CopyRequest(one, other, "a.img", transfer=TransferOptions(state_dir=str(state)))


@pytest.mark.parametrize("failpoint", ["object-copy-begun", "object-part-copied"])
def test_a_copy_by_the_server_that_is_killed_is_gone_on_with(
    failpoint: str, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = killed_copy(places, tmp_path / "state", failpoint)
    monkeypatch.setattr(s3_copy, "AT_ONCE", 5 * MIB)
    (row,) = copy_objects(request, False)["objects"]
    assert row["by_server"]
    assert row["bytes_kept"] == (5 * MIB if failpoint == "object-part-copied" else 0)
    with opened(request.destination) as store:
        assert store.get("a.img") == content()
        assert store.abort_uploads("", lambda info: True) == 0


def test_what_a_copy_by_the_server_that_was_killed_left_goes_when_it_is_cancelled(
    places: Places, tmp_path: Path
) -> None:
    request = killed_copy(places, tmp_path / "state", "object-part-copied")
    assert cancel(tmp_path / "state", request.destination)["changed"]
    assert nothing_is_left(request.destination, tmp_path / "state")


def cancel(state: Path, spec: StoreSpec | None, **options: bool) -> dict[str, Any]:
    (job,) = list_jobs(str(state), "", "", "", 0)["jobs"]
    request = JobRequest(job["id"], "cancelled", state_dir=str(state), store=spec)
    return end_job(request, options.get("check_mode", False))


def nothing_is_left(spec: StoreSpec, state: Path) -> bool:
    with opened(spec) as store:
        assert store.abort_uploads("", lambda info: True) == 0
        return [list(store.list("")), list((state / "transfers").iterdir())] == [[], []]


@each_kind
@pytest.mark.parametrize("failpoint", ["object-part-sent", "object-complete"])
def test_what_an_upload_that_was_killed_left_goes_when_it_is_cancelled(
    kind: str, failpoint: str, places: Places, tmp_path: Path
) -> None:
    spec, src, state = places(kind), tmp_path / "a.img", tmp_path / "state"
    src.write_bytes(content())
    killed("storage_upload", failpoint, spec, state, src=str(src))
    if kind == "s3":
        with pytest.raises(VmferryError, match="settings of that store alone") as refused:
            cancel(state, None)
        assert refused.value.kind == "invalid_config"
    assert cancel(state, spec, check_mode=True)["changed"]
    assert list((state / "transfers").iterdir())
    done = cancel(state, spec if kind == "s3" else None)
    assert (done["changed"], done["job"]["state"], done["job"]["undone"]) == (True, "cancelled", True)
    assert nothing_is_left(spec, state)
    assert not cancel(state, spec)["changed"]


def test_what_a_download_that_was_killed_left_goes_when_it_is_cancelled(places: Places, tmp_path: Path) -> None:
    spec, dest, state = places("s3"), tmp_path / "here.img", tmp_path / "state"
    with opened(spec) as store:
        store.put("a.img", content())
    killed("storage_download", "object-part-sent", spec, state, key="a.img", dest=str(dest))
    assert list(tmp_path.glob("*.part"))
    assert cancel(state, None)["changed"]
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == []
    assert not list((state / "transfers").iterdir())


@each_kind
def test_an_object_that_was_complete_stays_when_its_upload_is_cancelled(
    kind: str, places: Places, tmp_path: Path
) -> None:
    spec, src, state = places(kind), tmp_path / "a.img", tmp_path / "state"
    src.write_bytes(content())
    killed("storage_upload", "object-in-place", spec, state, src=str(src))
    cancel(state, spec)
    with opened(spec) as store:
        assert store.get("a.img") == content()
        assert store.abort_uploads("", lambda info: True) == 0


def test_what_another_job_went_on_with_is_that_ones(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from .test_storage_uploads import cut_after

    spec, src, state = places("s3"), tmp_path / "a.img", tmp_path / "state"
    src.write_bytes(content())
    killed("storage_upload", "object-part-sent", spec, state, src=str(src))
    first = list_jobs(str(state), "", "", "", 0)["jobs"][0]["id"]
    cut_after(monkeypatch, "s3", 1)
    transfer = TransferOptions(state_dir=str(state), parallel=1, max_retries=0)
    with pytest.raises(VmferryError, match="gone") as failed:
        upload_files(UploadRequest(spec, (str(src),), transfer=transfer), False)
    end_job(JobRequest(first, "cancelled", state_dir=str(state), store=spec), False)
    with opened(spec) as store:
        told: list[ObjectInfo] = []
        store.abort_uploads("", lambda info: bool(told.append(info)))
    assert [info.key for info in told] == ["a.img"]
    assert failed.value.job is not None
    end_job(JobRequest(failed.value.job["id"], "cancelled", state_dir=str(state), store=spec), False)
    assert nothing_is_left(spec, state)
