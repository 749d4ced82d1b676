# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a provider's name to the provider, also to the one whose VMs lie in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping

from ..._providers.base import Provider
from ..._providers.open import open_provider as open_known
from ..._stores.base import Store
from ..jobs.requests import ImportRequest, ProviderSpec, StoreSpec

if TYPE_CHECKING:
    from ..._transfer.flow import Flow
    from ..jobs.running_job import RunningJob


def _patient(spec: StoreSpec) -> Store:
    """Of whoever is no job."""
    from ..._stores.open import open_store
    from ..._stores.retrying import RetryingStore
    from ..._transfer.retry import Retry, RetryPolicy

    return RetryingStore(open_store(spec.url, spec.settings), Retry(RetryPolicy()))


def open_provider(
    name: str,
    settings: Mapping[str, Any],
    open_store: Callable[[StoreSpec], Store] = _patient,
    alive: Callable[[], object] = lambda: None,
    flow: Flow | None = None,
) -> Provider:
    """As `_providers.open`. The settings of `image` are the `url` of a store and its `storage` options, which
    `open_store` opens; `alive` is called now and then while no byte of it is moved. `flow`: of the job that works
    with it.
    """
    if name != "image":
        return open_known(name, settings, flow)
    from ..._stores.open import store_kind
    from .provider import ImageProvider

    spec = StoreSpec(settings["url"], settings.get("storage", {}))
    kind = store_kind(spec.url, spec.settings.get("type"))
    is_path, keeps_metadata = kind.name in ("file", "nfs"), kind.keeps_metadata
    return ImageProvider(open_store(spec), is_path=is_path, keeps_metadata=keeps_metadata, alive=alive, flow=flow)


def open_target(spec: ProviderSpec, job: RunningJob) -> Provider:
    """The one that a job writes a VM to."""
    return open_provider(spec.name, spec.settings, job.open_source, job.going_on, job.flow)


def open_import_target(request: ImportRequest, job: RunningJob) -> Provider:
    """By the method that is asked for, of which the record tells what whoever ends the job has to know."""
    provider = open_target(request.provider, job)
    try:
        provider.import_by(
            request.method, request.vendor_task, lambda url, settings: job.open_source(StoreSpec(url, settings))
        )
    except BaseException:
        provider.close()
        raise
    if request.vendor_task is not None:
        job.tell(staging=request.vendor_task.staging)
    return provider
