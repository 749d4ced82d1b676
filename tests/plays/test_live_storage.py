# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and objects are jobs like exports: a play shows how far they are, and what was stopped is gone on with."""

from __future__ import annotations

import json
import os
import re
import signal
from random import Random
from typing import Any

import yaml

from ansible_collections.vmferry.migrate.plugins.modules import (
    storage_copy,
    storage_download,
    storage_upload,
    vm_export,
)

from .playing import ROOT, SLOW, Stage

MIB = 1 << 20
DATA = Random(7).randbytes(20 * MIB)


def task(stage: Stage, module: str, **options: Any) -> dict[str, Any]:
    own = {"url": f"file://{stage.store}", "state_dir": str(stage.state), "progress_interval": "1s"}
    return {f"vmferry.migrate.{module}": {**own, **options}, "register": "done"}


def returned(module: Any) -> set[str]:
    return set(yaml.safe_load(module.RETURN)["job"]["contains"])


def test_a_play_shows_how_far_a_file_is(stage: Stage) -> None:
    src = stage.folder / "disk.img"
    src.write_bytes(DATA)
    upload = task(stage, "storage_upload", src=str(src), bandwidth_limit=SLOW)
    play = stage.play(upload).wait()
    lines = [line for line in play.lines() if " transferring object 1/1 · " in line]
    assert 3 <= len(lines) <= play.result()["job"]["duration"] + 1, play.output  # one a second
    percents = [float(re.findall(r"([\d.]+) %", line)[0]) for line in lines]
    assert percents == sorted(percents)
    result = play.result()
    job = result["job"]
    assert (result["changed"], result["bytes_sent"]) == (True, len(DATA))
    assert (job["kind"], job["state"], job["bytes_sent"]) == ("upload", "ready", len(DATA))
    assert job.keys() == returned(storage_upload)
    assert stage.left_for_ansible() == []


def test_what_a_killed_play_had_sent_is_not_sent_again(stage: Stage) -> None:
    stage.store.mkdir(exist_ok=True)
    (stage.store / "disk.img").write_bytes(DATA)
    dest = stage.folder / "here.img"
    download = task(stage, "storage_download", key="disk.img", dest=str(dest), bandwidth_limit="2MiB/s", parallel=1)
    play = stage.play(download)
    stage.wait_for(lambda: any(one.get("bytes_sent", 0) >= 8 * MIB for one in stage.records()), "half of it")
    os.killpg(play.process.pid, signal.SIGKILL)
    stage.wait_for(lambda: all(one["finished"] for one in stage.records()), "the end of the job")
    assert not dest.exists()
    assert stage.record()["kept"]["export"] == dest.as_uri()
    again = stage.play(task(stage, "storage_download", key="disk.img", dest=str(dest))).wait()
    result = again.result()
    assert dest.read_bytes() == DATA
    assert result["bytes_kept"] >= 8 * MIB
    assert result["job"].keys() == returned(storage_download)
    assert "going on with" in again.output


def test_objects_are_copied_looked_at_and_removed_by_tasks(stage: Stage) -> None:
    src = stage.folder / "disk.img"
    src.write_bytes(DATA[:MIB])
    ends = {"source": {"url": src.as_uri()}, "destination": {"url": f"file://{stage.store}", "key": "a/b.img"}}
    store = {"url": f"file://{stage.store}", "key": "a/b.img"}
    copy = {"vmferry.migrate.storage_copy": {**ends, "state_dir": str(stage.state)}, "register": "copied"}
    play = stage.play(
        copy,
        {"vmferry.migrate.storage_info": store, "register": "found"},
        {
            "vmferry.migrate.storage_object": {**store, "state": "absent", "if_match": "{{ found.objects[0].etag }}"},
            "register": "removed",
        },
        {
            "ansible.builtin.assert": {
                "that": [
                    "copied is changed",
                    "found.objects[0].size == 1048576",
                    "removed.object.key == 'a/b.img'",
                    "copied.job.keys() | sort == keys | sort",
                ]
            },
            "vars": {"keys": sorted(returned(storage_copy))},
        },
    ).wait()
    assert "changed=2" in play.output
    assert stage.stored() == []


def test_the_example_keeps_images_in_two_stores_and_sends_each_once(stage: Stage) -> None:
    images, second = stage.folder / "images", stage.folder / "second"
    (images / "old").mkdir(parents=True)
    (images / "a.img").write_bytes(DATA[:MIB])
    (images / "old" / "b.img").write_bytes(DATA[MIB : 2 * MIB])
    said = {"folder": str(images), "url": f"file://{stage.store}", "second": f"file://{second}"}
    for changed in (2, 0):
        play = stage.play(
            playbook=ROOT / "examples" / "keep_images.yml",
            arguments=["-e", json.dumps(said)],
            environment={"VMFERRY_STATE_DIR": str(stage.state)},
        ).wait()
        assert f"changed={changed} " in play.output
        assert '"images/a.img"' in play.output
    assert (second / "images" / "old" / "b.img").read_bytes() == DATA[MIB : 2 * MIB]


def test_an_export_is_copied_and_the_copy_told(stage: Stage) -> None:
    second = f"file://{stage.folder}/second"
    export = stage.export(copies_to=[{"url": second}], verify="none", max_age="1h")
    play = stage.play(export, export).wait()
    first, again = play.results()[-2:]
    (row,) = first["copies"]
    assert row.keys() == yaml.safe_load(vm_export.RETURN)["copies"]["contains"].keys()
    assert (row["holds"], row["url"].startswith(second), row["exports"]) == (True, True, [first["export"]["id"]])
    assert (again["changed"], again["copies"][0]["changed"]) == (False, False)
