# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates: those we are told to trust, and why a server's own was not accepted."""

from __future__ import annotations

import ssl
from typing import Optional, Tuple

from .._errors import Kind, VmferryError
from .error_layers import layers

_EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 10, 62, 64  # X509_V_ERR_* of OpenSSL


def check_authorities(path: str, option: str = "The storage option ca_path") -> None:
    """Before any request: afterwards a missing file looks like a broken connection. `option`: which named it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise _unusable(option, path, "holds no certificates in PEM form") from error
    except OSError as error:
        raise _unusable(option, path, f"cannot be read ({error.strerror})") from error


def _unusable(option: str, path: str, why: str) -> VmferryError:
    return VmferryError("invalid_config", f"{option} {path} {why}.", "Give a file on the host that runs the task.")


def refused_certificate(error: BaseException) -> Optional[Tuple[Kind, str, str]]:
    """Kind, reason and hint, in which `{address}` stands for what the user gave; None for all other errors."""
    for each in layers(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            # A name that Python compares itself has no code.
            return _refused(getattr(each, "verify_code", _OTHER_NAME))
        if isinstance(each, ValueError) and type(each).__name__ == "CertificateError":  # urllib3 compares names, too
            return _refused(_OTHER_NAME)
    return None


def _refused(code: int) -> Tuple[Kind, str, str]:
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        hint = "Write the name that the certificate was made for into {address}."
        return "network", "the server's certificate was made for another host name", hint
    if code == _EXPIRED:
        return "network", "the server's certificate has expired", "Renew it, or set this machine's clock."
    return "network", "the server's certificate was not accepted", "Set ca_path to the authority that signed it."
