"""Certificates of the local control plane, checked by a TLS handshake as clients do it."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from triplane.errors import Corrupt
from triplane.localcluster.pki import Pki, ensure_pki

HOSTS = {"serving": ("127.0.0.1", "localhost")}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def handshake(pki: Pki, name: str) -> None:
    """Raises ``ssl.SSLError`` unless a client that trusts our authority accepts the server as ``name``."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.certificate("serving"), pki.key("serving"))
    ours, theirs = socket.socketpair()
    ours.settimeout(10)

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client = ssl.create_default_context(cafile=str(pki.authority))
        client.wrap_socket(ours, server_hostname=name).close()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_clients_that_trust_the_authority_accept_the_server(name: str, tmp_path: Path) -> None:
    handshake(ensure_pki(tmp_path / "pki", HOSTS), name)


def test_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ensure_pki(tmp_path / "pki", HOSTS), "elsewhere.example")


def test_all_files_are_private_and_a_second_call_changes_none(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path / "pki", HOSTS)
    before = contents(pki.folder)
    assert len(before) == 6
    assert {path.stat().st_mode & 0o777 for path in pki.folder.iterdir()} == {0o600}
    assert pki.folder.stat().st_mode & 0o777 == 0o700
    ensure_pki(tmp_path / "pki", HOSTS)
    assert contents(pki.folder) == before


@pytest.mark.parametrize(
    ("days", "renewed"),
    [pytest.param(600, False, id="long before it expires"), pytest.param(700, True, id="shortly before")],
)
def test_a_certificate_is_renewed_shortly_before_it_expires(days: int, renewed: bool, tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path / "pki", HOSTS)
    before = contents(pki.folder)
    ensure_pki(tmp_path / "pki", HOSTS, now=datetime.now(UTC) + timedelta(days=days))
    after = contents(pki.folder)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == ({"serving.crt", "serving.key"} if renewed else set())


@pytest.mark.parametrize("lost", ["serving.crt", "serving.key"])
def test_a_lost_or_foreign_file_is_replaced(lost: str, tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path / "pki", HOSTS)
    (pki.folder / lost).write_bytes((ensure_pki(tmp_path / "other", HOSTS).folder / lost).read_bytes())
    handshake(ensure_pki(tmp_path / "pki", HOSTS), "localhost")


def test_new_names_mean_a_new_certificate(tmp_path: Path) -> None:
    ensure_pki(tmp_path / "pki", HOSTS)
    pki = ensure_pki(tmp_path / "pki", {"serving": ("127.0.0.1", "kubernetes")})
    handshake(pki, "kubernetes")


def test_a_damaged_service_account_key_is_named(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path / "pki", HOSTS)
    pki.service_account_key.write_text("garbage")
    with pytest.raises(Corrupt, match=r"service-account\.key is not a private key"):
        ensure_pki(tmp_path / "pki", HOSTS)


def test_the_authority_may_sign_no_further_authority(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path / "pki", HOSTS)
    authority = x509.load_pem_x509_certificate(pki.authority.read_bytes())
    serving = x509.load_pem_x509_certificate(pki.certificate("serving").read_bytes())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert not serving.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
