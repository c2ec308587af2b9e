"""TLS from certificate files: for what is served here, and for talking to it as its owner."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from pipeline.errors import ConfigError

CERTIFICATE: Final = "server.tls_cert"
KEY: Final = "server.tls_key"


class Certificate:
    """A certificate with its key, read from PEM files, which may be renewed.

    Args:
        certificate: the chain, the daemon's own first.
        key: its private key, without a passphrase; None where it is in `certificate`, too.

    Attributes:
        context: to serve with; TLS 1.2 at least.

    Raises:
        ConfigError: a file cannot be read, or they do not belong together.
    """

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self.context = _serving()
        self.renew()

    def renew(self) -> None:
        """Read the files again, for connections from now on; a mistake keeps what is.

        Raises:
            ConfigError: as above.
        """
        self._load(_serving())  # a pair that does not fit must not get halfway into the real one
        self._load(self.context)

    def _load(self, context: ssl.SSLContext) -> None:
        for where, path in ((CERTIFICATE, self._certificate), (KEY, self._key)):
            if path is not None:
                _check_readable(where, path)
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_passphrase)
        except ConfigError:
            raise
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            problem = f"no certificate and key that belong together, in PEM form: {error}"
            raise ConfigError(CERTIFICATE, f"{self._certificate}: {problem}") from error


def pinned(certificate: Path) -> ssl.SSLContext:
    """A context for a client on the daemon's own machine: it trusts this certificate alone.

    Whatever name is in the certificate, it is the daemon's own that is shown.

    Raises:
        ConfigError: it cannot be read.
    """
    _check_readable(CERTIFICATE, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # A certificate that an authority has signed is trusted without that authority, too.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except OSError as error:
        raise ConfigError(CERTIFICATE, f"{certificate}: no PEM certificate: {error}") from error
    return context


def _serving() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _check_readable(where: str, path: Path) -> None:
    """Say which of the files is the problem, which OpenSSL does not."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(where, f"{path} cannot be read: {error.strerror or error}") from error


def _no_passphrase() -> str:
    """Without this, OpenSSL would ask for one on the terminal and wait."""
    raise ConfigError(KEY, "the key has a passphrase, which nobody is there to enter; remove it")
