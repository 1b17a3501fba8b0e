"""Certificates and keys of the local control plane: one authority, ECDSA P-256 throughout (X.509, RFC 5280).

The authority signs the API server's and the controller manager's serving certificate and etcd's peer
certificate. People and programs do not use client certificates: they carry bearer tokens, because the gateway
authenticates people by TokenReview.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from triplane.errors import Corrupt
from triplane.localcluster.files import private_directory, write_private

_AUTHORITY_LIFE = timedelta(days=20 * 365)
_CERTIFICATE_LIFE = timedelta(days=2 * 365)
_RENEW_BEFORE = timedelta(days=60)
_CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Pki:
    """Where the files are."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def authority_key(self) -> Path:
        return self.folder / "ca.key"

    @property
    def service_account_key(self) -> Path:
        return self.folder / "service-account.key"

    @property
    def service_account_public_key(self) -> Path:
        return self.folder / "service-account.pub"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"


def ensure_pki(folder: Path, certificates: dict[str, Sequence[str]], *, now: datetime | None = None) -> Pki:
    """Make what is missing and renew what expires within 60 days; everything else stays as it is.

    ``certificates`` maps a name to the DNS names and addresses it serves. All files are 0600 in a 0700
    folder. Raises ``Corrupt`` when a stored key cannot be read.
    """
    now = now or datetime.now(UTC)
    pki = Pki(private_directory(folder))
    if not (pki.authority.exists() and pki.authority_key.exists()):
        _make_authority(pki, now)
    if not pki.service_account_key.exists():
        _write_key(pki.service_account_key, ec.generate_private_key(ec.SECP256R1()))
    public = _read_key(pki.service_account_key).public_key()
    write_private(pki.service_account_public_key, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for name, hosts in certificates.items():
        if not _still_good(pki, name, hosts, now):
            _issue(pki, name, hosts, now)
    return pki


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise Corrupt(
            f"{path} is not a private key; `triplane cluster down`, delete {path.parent}, start again"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Corrupt(f"{path} is not an ECDSA key; `triplane cluster down`, delete {path.parent}, start again")
    return key


def new_authority(
    common_name: str, now: datetime, life: timedelta
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A self-signed authority that signs certificates directly."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def new_certificate(
    common_name: str,
    hosts: Sequence[str],
    signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    now: datetime,
    life: timedelta,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for these names and addresses, with a key of its own."""
    authority, authority_key = signer
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
        .add_extension(alternative_names(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return certificate, key


def alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """DNS names and addresses as a certificate says them."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def _make_authority(pki: Pki, now: datetime) -> None:
    certificate, key = new_authority("triplane local cluster", now, _AUTHORITY_LIFE)
    _write_key(pki.authority_key, key)
    write_private(pki.authority, certificate.public_bytes(Encoding.PEM))


def _issue(pki: Pki, name: str, hosts: Sequence[str], now: datetime) -> None:
    signer = x509.load_pem_x509_certificate(pki.authority.read_bytes()), _read_key(pki.authority_key)
    certificate, key = new_certificate(name, hosts, signer, now, _CERTIFICATE_LIFE)
    _write_key(pki.key(name), key)
    write_private(pki.certificate(name), certificate.public_bytes(Encoding.PEM))


def _still_good(pki: Pki, name: str, hosts: Sequence[str], now: datetime) -> bool:
    """Key and certificate belong together, name these hosts, come from our authority and last long enough."""
    if not (pki.certificate(name).exists() and pki.key(name).exists()):
        return False
    try:
        certificate = x509.load_pem_x509_certificate(pki.certificate(name).read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(pki.authority.read_bytes()))
    except (ValueError, TypeError, x509.ExtensionNotFound, InvalidSignature):
        return False
    return (
        certificate.not_valid_after_utc - now > _RENEW_BEFORE
        and names == alternative_names(hosts)
        and certificate.public_key() == _read_key(pki.key(name)).public_key()
    )
