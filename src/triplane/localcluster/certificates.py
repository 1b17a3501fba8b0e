"""The webhook's own authority and certificate, and their rotation without a moment in which nobody is trusted.

What is trusted (``caBundle``) always comes before what is served: a new authority is announced beside the old one, the
API server is seen to use that bundle, only then is a certificate of the new authority served, and only after every
replica has had time to take it up does the old authority go. Each step is a file replaced whole, so a crash between
two of them is a step not taken yet.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from triplane.localcluster.files import private_directory, write_private
from triplane.localcluster.pki import alternative_names, new_authority, new_certificate
from triplane.settings import Settings

HOSTS: Final = ("127.0.0.1", "localhost")
SETTLED: Final = timedelta(seconds=4)
"""After this long every replica serves a certificate that lies there (they look each second)."""
_NAME: Final = "triplane admission"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, in one PEM file."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def ends(self) -> datetime:
        return self.certificate.not_valid_after_utc

    @property
    def pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def hosts(self) -> x509.SubjectAlternativeName:
        """What it serves."""
        return self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    def signed(self, other: "Pair") -> bool:
        """Whether ``other`` comes from this authority."""
        try:
            other.certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


class Certificates:
    """The files of one installation. One process rotates them; any number read."""

    def __init__(self, folder: Path, *, authority: timedelta, certificate: timedelta) -> None:
        """``authority`` and ``certificate``: how long each lives; a certificate at most a third of its authority."""
        self._folder = folder
        self._authority_life = authority
        self._certificate_life = min(certificate, authority / 3)

    @classmethod
    def of(cls, settings: Settings) -> "Certificates":
        """Those of this home."""
        return cls(
            settings.cluster / "admission",
            authority=timedelta(seconds=settings.admission_authority_seconds),
            certificate=timedelta(seconds=settings.admission_certificate_seconds),
        )

    @property
    def serving(self) -> Path:
        """What the webhook serves with: certificate and key."""
        return self._folder / "serving.pem"

    @property
    def trusted(self) -> Path:
        """All authorities that are trusted now; the ``caBundle``."""
        return self._folder / "trusted.crt"

    def bundle(self) -> bytes:
        """The ``caBundle`` (PEM)."""
        return self.trusted.read_bytes()

    def ensure(self, now: datetime | None = None) -> None:
        """Make what is missing, damaged or over. Where nothing is left to rely on, there is no overlap."""
        now = now or datetime.now(UTC)
        private_directory(self._folder)
        current, pending = self._authorities()
        if current is None or current.ends <= now:
            current, pending = pending or self._new_authority(now), None
            if current.ends <= now:
                current = self._new_authority(now)
            _write(self._current, current)
            self._pending.unlink(missing_ok=True)
        self._tell(current, pending)
        served = _read(self.serving)
        known = [each for each in (current, pending) if each is not None]
        if served is None or served.ends <= now or not any(each.signed(served) for each in known):
            self._issue(current, now)
        elif served.hosts != alternative_names(HOSTS):
            self._issue(next(each for each in known if each.signed(served)), now)

    def advance(self, in_force: bytes | None, now: datetime | None = None) -> bool:
        """Take the next step, if one is due; whether one was. ``in_force`` is the bundle the API server is known to
        use now."""
        now = now or datetime.now(UTC)
        self.ensure(now)
        current, pending = self._authorities()
        served = _read(self.serving)
        assert current is not None, "ensure"
        assert served is not None, "ensure"
        if pending is None:
            if current.ends - now <= self._authority_life / 3:
                pending = self._new_authority(now)
                _write(self._pending, pending)
                self._tell(current, pending)
                return True
        elif pending.signed(served):
            if now - self._served_since() < SETTLED:
                return False
            os.replace(self._pending, self._current)
            self._tell(pending, None)
            return True
        elif in_force == self.bundle():
            self._issue(pending, now)
            return True
        signer = pending if pending is not None and pending.signed(served) else current
        longer = min(now + self._certificate_life, signer.ends) - served.ends
        if served.ends - now <= self._certificate_life / 3 and longer > self._certificate_life / 10:
            self._issue(signer, now)
            return True
        return False

    @property
    def _current(self) -> Path:
        return self._folder / "authority.pem"

    @property
    def _pending(self) -> Path:
        return self._folder / "authority-next.pem"

    def _authorities(self) -> tuple[Pair | None, Pair | None]:
        return _read(self._current), _read(self._pending)

    def _served_since(self) -> datetime:
        return datetime.fromtimestamp(self.serving.stat().st_mtime, UTC)

    def _new_authority(self, now: datetime) -> Pair:
        return Pair(*new_authority(f"{_NAME} {now:%Y-%m-%dT%H:%M:%SZ}", now, self._authority_life))

    def _issue(self, signer: Pair, now: datetime) -> None:
        until = min(now + self._certificate_life, signer.ends)
        made = new_certificate(_NAME, HOSTS, (signer.certificate, signer.key), now, until - now)
        _write(self.serving, Pair(*made))

    def _tell(self, *authorities: Pair | None) -> None:
        write_private(self.trusted, b"".join(each.pem for each in authorities if each is not None))


def _read(path: Path) -> Pair | None:
    """What lies there; None when nothing usable does."""
    try:
        pem = path.read_bytes()
        key = load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return Pair(certificate, key)


def _write(path: Path, pair: Pair) -> None:
    private = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(path, pair.pem + private)
