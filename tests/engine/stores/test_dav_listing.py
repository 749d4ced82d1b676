# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an HTTP server says of its folders is an untrusted text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.dav import client as dav_client
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.dav.client import DavClient, origin_of
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.dav.folder import DavFolder
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.dav.listing import Listing, Resource
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.dav.settings import DavSettings

BOMB = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><multistatus xmlns="DAV:">&b;</multistatus>'
FILE = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><multistatus xmlns="DAV:">&x;</multistatus>'


def response(href: str, properties: str = "", status: str = "HTTP/1.1 200 OK") -> str:
    inside = f"<D:propstat><D:prop>{properties}</D:prop><D:status>{status}</D:status></D:propstat>"
    return f"<D:response><D:href>{href}</D:href>{inside}</D:response>"


def multistatus(*responses: str) -> bytes:
    return f'<D:multistatus xmlns:D="DAV:">{"".join(responses)}</D:multistatus>'.encode()


def parsed(text: bytes, step: int = 7) -> list[Resource]:
    listing = Listing()
    for at in range(0, len(text), step):
        listing.feed(text[at : at + step])
    listing.feed(b"", last=True)
    return listing.found


def test_what_is_there_is_read_in_pieces_and_what_is_not_is_left_out() -> None:
    found = parsed(
        multistatus(
            response("/x/", "<D:resourcetype><D:collection/></D:resourcetype>"),
            response(
                "/x/a%20b",
                "<D:getcontentlength>12</D:getcontentlength><D:getetag>&quot;e&quot;</D:getetag>"
                "<D:getlastmodified>Sat, 21 Nov 2026 20:13:02 GMT</D:getlastmodified>"
                '<getetag xmlns="urn:other">no</getetag><D:x><D:getetag>no</D:getetag></D:x>',
            ),
            response("/x/c", "<D:getcontentlength>99</D:getcontentlength>", "HTTP/1.1 404 Not Found"),
        )
    )
    assert [(each.href, each.is_folder, each.size, each.etag, each.modified) for each in found] == [
        ("/x/", True, 0, "", 0.0),
        ("/x/a%20b", False, 12, '"e"', 1795291982.0),
        ("/x/c", False, 0, "", 0.0),
    ]


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        FILE,
        "<html><body>welcome</body></html>",
        '<multistatus xmlns="urn:other"/>',
        "no XML",
        "",
        '<multistatus xmlns="DAV:">',
        f'<multistatus xmlns="DAV:">{"<a>" * 100}',
        f'<multistatus xmlns="DAV:"><response><href>{"x" * 20_000}</href></response></multistatus>',
    ],
)
def test_what_is_no_listing_is_refused(text: str) -> None:
    with pytest.raises(VmferryError) as raised:
        parsed(text.encode(), 1000)
    assert raised.value.kind == "unsupported"
    assert raised.value.hint


@pytest.mark.parametrize("size", ["-1", "1e9", "9" * 30, "٣", ""])
def test_a_size_that_is_no_number_is_none(size: str) -> None:
    [found] = parsed(multistatus(response("/x", f"<D:getcontentlength>{size}</D:getcontentlength>")))
    assert found.size == 0


class Answer:
    status = 207

    def __init__(self, text: bytes) -> None:
        self._text = text

    def read(self, size: int) -> bytes:
        text, self._text = self._text[:size], self._text[size:]
        return text


class Said(DavClient):
    """Answers each request with the same listing."""

    def __init__(self, text: bytes) -> None:
        super().__init__("https://host:8443", DavSettings())
        self._text = text

    @contextmanager
    def open(self, *_unused: Any, **_also: Any) -> Iterator[Any]:
        yield Answer(self._text)


def names(*hrefs: str) -> list[str]:
    folder = DavFolder(Said(multistatus(*map(response, hrefs))), "exports/my vms")
    return [name for name, _unused in folder.entries("vm") or []]


@pytest.mark.parametrize(
    ("href", "name"),
    [
        ("/exports/my%20vms/vm/a", "a"),
        ("/exports/my%20vms/vm/a/", "a"),
        ("/exports/my vms/vm/a", "a"),
        ("/%65xports/my%20vms/vm/%C3%BC%25", "ü%"),
        ("https://host:8443/exports/my%20vms/vm/a", "a"),
        ("http://HOST:8443/exports/my%20vms/vm/a", "a"),
    ],
)
def test_a_name_is_read_however_its_address_is_written(href: str, name: str) -> None:
    assert names("/exports/my%20vms/vm/", href) == [name]


@pytest.mark.parametrize(
    "href",
    [
        "/exports/other/a",
        "/exports/my%20vms/vm/a/b",
        "/exports/my%20vms",
        "/exports/my%20vms/vm/..",
        "/exports/my%20vms/vm/%2E%2E",
        "/exports/my%20vms/vm/a%2Fb",
        "https://elsewhere:8443/exports/my%20vms/vm/a",
        "https://host/exports/my%20vms/vm/a",
        "https://host:port/exports/my%20vms/vm/a",
        "https://[host/a",
        "a",
        "",
    ],
)
def test_a_listing_that_tells_of_another_place_is_refused(href: str) -> None:
    with pytest.raises(VmferryError) as raised:
        names(href)
    assert raised.value.kind == "unsupported"


def test_a_listing_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.vmferry.migrate.plugins.module_utils._stores.dav import reading as dav_reading

    monkeypatch.setattr(dav_reading, "_LONGEST_LISTING", 1000)
    with pytest.raises(VmferryError) as raised:
        names(*["/exports/my%20vms/vm/a"] * 100)
    assert raised.value.kind == "unsupported"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Host/x", "https://host"),
        ("https://host:443/x", "https://host"),
        ("http://host:443/x", "http://host:443"),
        ("http://[::1]:80/x", "http://[::1]"),
    ],
)
def test_an_origin_is_written_in_one_way(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/other", "https://host/other"),
        ("https://cdn.example/x", "https://cdn.example/x"),
        ("http://host/x", None),
        ("ftp://host/x", None),
        ("https://me:secret@host/x", None),
        ("https://evil.example\\.cdn.example/x", None),  # which libraries read in two ways
        ("", None),
    ],
)
def test_a_redirect_leads_to_no_less_safe_a_place(location: str, leads_to: str | None) -> None:
    if leads_to is not None:
        assert dav_client._redirected("https://host/x", location, "Reading") == leads_to
        return
    with pytest.raises(VmferryError) as raised:
        dav_client._redirected("https://host/x", location, "Reading")
    assert raised.value.kind == "unsupported"
    assert "secret" not in raised.value.message
