# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job that asks a hypervisor or a store which never answers shows that it lives, and can be ended like any other."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from one_vm import OneVm, export_one

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import _Import
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs import running_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ImportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.orders import ask_to_stop

JOB = "0123456789abcdef"
PATIENCE = 15.0  # seconds, more than it takes, and less than a job has that must undo something


class Hole:
    """Takes a question and never answers."""

    def __init__(self) -> None:
        self.asked, self._end = threading.Event(), threading.Event()

    def __call__(self, *_unused: object, **_options: object) -> Any:
        self.asked.set()
        self._end.wait(2 * PATIENCE)
        raise VmferryError("network", "It was not asked any more.")

    def close(self) -> None:
        self._end.set()


@pytest.fixture
def hole() -> Iterator[Hole]:
    with closing(Hole()) as made:
        yield made


class Place:
    def __init__(self, folder: Path) -> None:
        self.state, self.store = folder / "state", folder / "store"
        self.store.mkdir()

    @property
    def folder(self) -> Path:
        return self.state / "jobs" / JOB

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "record.json").read_text())
        return found

    def options(self, **options: Any) -> TransferOptions:
        return TransferOptions(state_dir=str(self.state), job_id=JOB, max_retries=0, **options)

    def export_asking_the_hypervisor(self, hole: Hole, options: TransferOptions) -> None:
        provider = OneVm()
        provider.describe = hole  # type: ignore[method-assign]
        export_one(self.store, provider, options)

    def export_asking_the_store(self, hole: Hole, options: TransferOptions) -> None:
        def silent(store: Store) -> Store:
            store.list_folders = hole  # type: ignore[method-assign]
            return store

        export_one(self.store, OneVm(), options, wrap=silent)

    def import_asking_the_store(self, hole: Hole, options: TransferOptions) -> None:
        request = ImportRequest(ProviderSpec("libvirt"), StoreSpec(str(self.store)), Placement("new"), transfer=options)
        with (
            RunningJob.start("import", options, "new", str(self.store), {"importing": 1.0}, False) as job,
            closing(job.open_store(request.store)) as store,
        ):
            store.list_folders = hole  # type: ignore[method-assign]
            provider: Any = OneVm()
            provider.clean_up_imports = list
            _Import(request, job, provider, store).run(False)


Transfer = Callable[[Place, Hole, TransferOptions], None]
TRANSFERS = [Place.export_asking_the_hypervisor, Place.export_asking_the_store, Place.import_asking_the_store]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_job, "ASK_GRACE", 0.2)


def refused(action: Callable[[], object]) -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        action()
    return caught.value


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("transfer", TRANSFERS)
def test_a_question_without_an_answer_is_cancelled(place: Place, hole: Hole, transfer: Transfer) -> None:
    seen: list[dict[str, Any]] = []

    def cancel() -> None:
        hole.asked.wait(PATIENCE)
        seen.append(place.record())
        time.sleep(1.5)
        seen.append(place.record())
        ask_to_stop(place.folder, "the test")

    watcher = threading.Thread(target=cancel)
    watcher.start()
    error = refused(lambda: transfer(place, hole, place.options()))
    watcher.join()
    assert (error.kind, error.phase) == ("cancelled", "validating")
    assert (place.record()["phase"], place.record()["undone"]) == ("cancelled", True)
    assert [one["phase"] for one in seen] == ["validating", "validating"]
    assert seen[1]["heartbeat"] > seen[0]["heartbeat"]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("transfer", TRANSFERS)
def test_a_question_whose_controller_is_gone_ends(place: Place, hole: Hole, transfer: Transfer) -> None:
    error = refused(lambda: transfer(place, hole, place.options(controller_timeout=0.5)))
    assert error.kind == "cancelled"
    assert "its controller has not been heard of" in error.message


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("transfer", TRANSFERS)
def test_a_question_is_given_up_after_idle_timeout(place: Place, hole: Hole, transfer: Transfer) -> None:
    error = refused(lambda: transfer(place, hole, place.options(idle_timeout=0.5)))
    assert (error.kind, error.phase) == ("timeout", "validating")


def test_a_signal_ends_a_question_within_seconds(place: Place, hole: Hole) -> None:
    def terminate() -> None:
        hole.asked.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    begun = time.monotonic()
    error = refused(lambda: place.export_asking_the_hypervisor(hole, place.options()))
    assert error.kind == "cancelled"
    assert "SIGTERM" in error.message
    assert time.monotonic() - begun < PATIENCE
