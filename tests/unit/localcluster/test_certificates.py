"""The webhook's certificates: at every instant of a rotation the API server trusts what is served."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from triplane.localcluster.certificates import SETTLED, Certificates

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


def made(folder: Path, at: datetime = NOW) -> Certificates:
    """An authority of 90 days, a certificate of 30."""
    found = Certificates(folder / "admission", authority=90 * DAY, certificate=30 * DAY)
    found.ensure(at)
    return found


def accepted(certificates: Certificates, bundle: bytes, name: str = "127.0.0.1") -> bool:
    """Whether a client that trusts ``bundle`` accepts what is served now."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates.serving, certificates.serving)
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
        ssl.create_default_context(cadata=bundle.decode()).wrap_socket(ours, server_hostname=name).close()
    except ssl.SSLCertVerificationError:
        return False
    finally:
        ours.close()
        thread.join()
    return True


def settle(certificates: Certificates) -> datetime:
    """A time at which every replica has taken up what is served."""
    return datetime.fromtimestamp(certificates.serving.stat().st_mtime, UTC) + SETTLED


@pytest.mark.parametrize(("name", "known"), [("127.0.0.1", True), ("localhost", True), ("elsewhere.example", False)])
def test_what_is_served_is_trusted_under_its_own_names(name: str, known: bool, tmp_path: Path) -> None:
    certificates = made(tmp_path)
    assert accepted(certificates, certificates.bundle(), name) is known


def test_files_are_private_and_stay_as_they_are(tmp_path: Path) -> None:
    certificates = made(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "admission").iterdir()}
    assert {path.stat().st_mode & 0o777 for path in before} == {0o600}
    assert not certificates.advance(certificates.bundle(), NOW + 5 * DAY)
    assert {path: path.read_bytes() for path in before} == before


def test_a_certificate_is_renewed_under_the_same_authority(tmp_path: Path) -> None:
    certificates = made(tmp_path, NOW - 21 * DAY)
    bundle, served = certificates.bundle(), certificates.serving.read_bytes()
    assert not certificates.advance(bundle, NOW - 2 * DAY)
    assert certificates.advance(bundle, NOW)
    assert certificates.serving.read_bytes() != served
    assert certificates.bundle() == bundle
    assert accepted(certificates, bundle)
    assert not certificates.advance(bundle, NOW)


def test_at_every_step_of_a_rotation_what_is_in_force_trusts_what_is_served(tmp_path: Path) -> None:
    certificates, later = made(tmp_path, NOW - 61 * DAY), NOW
    certificates.ensure(later)  # the supervisor was away
    old, before = certificates.bundle(), certificates.serving.read_bytes()
    assert certificates.advance(old, later)
    both = certificates.bundle()
    assert both.startswith(old)
    assert both != old
    # The API server does not know of it yet: nothing else may be served.
    assert not certificates.advance(old, later)
    assert not certificates.advance(None, later)
    assert certificates.serving.read_bytes() == before
    # Now it does.
    assert certificates.advance(both, later)
    assert not accepted(certificates, old)
    assert accepted(certificates, both)
    # A replica may not have looked yet.
    assert not certificates.advance(both, settle(certificates) - SETTLED / 2)
    assert certificates.bundle() == both
    assert certificates.advance(both, max(later, settle(certificates)))
    new = certificates.bundle()
    assert both == old + new
    assert accepted(certificates, new)
    assert not certificates.advance(new, later)


def test_a_switch_before_the_api_server_trusts_the_authority_would_be_refused(tmp_path: Path) -> None:
    """The order matters: this is what the wait in the middle of a rotation is for."""
    certificates, later = made(tmp_path, NOW - 61 * DAY), NOW
    certificates.ensure(later)
    old = certificates.bundle()
    certificates.advance(old, later)
    certificates.advance(certificates.bundle(), later)  # says that it is in force although it is not
    assert not accepted(certificates, old)


def test_what_is_over_is_replaced_at_once(tmp_path: Path) -> None:
    certificates = made(tmp_path)
    old = certificates.bundle()
    certificates.ensure(NOW + 91 * DAY)
    assert certificates.bundle() != old
    assert not certificates.advance(certificates.bundle(), NOW + 91 * DAY)


def test_a_rotation_that_stood_still_until_the_old_authority_was_over_goes_on_with_the_next(tmp_path: Path) -> None:
    certificates = made(tmp_path)
    certificates.advance(certificates.bundle(), NOW + 61 * DAY)
    both = certificates.bundle()
    certificates.ensure(NOW + 91 * DAY)
    assert both.endswith(certificates.bundle())


@pytest.mark.parametrize("lost", ["serving.pem", "authority.pem", "trusted.crt"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\n"], ids=["gone", "empty", "half"])
def test_a_lost_or_damaged_file_is_made_anew(lost: str, content: bytes | None, tmp_path: Path) -> None:
    certificates = made(tmp_path)
    path = tmp_path / "admission" / lost
    path.unlink() if content is None else path.write_bytes(content)
    certificates.ensure(NOW)
    assert accepted(certificates, certificates.bundle())


def test_lives_of_seconds_rotate_in_seconds(tmp_path: Path) -> None:
    life, now = timedelta(seconds=30), NOW
    certificates = Certificates(tmp_path, authority=life, certificate=life / 3)
    certificates.ensure(now)
    bundles = set()
    for second in range(100):
        now = NOW + timedelta(seconds=second)
        while certificates.advance(certificates.bundle(), now):
            pass
        bundles.add(certificates.bundle())
    assert len(bundles) >= 2
    served = certificates.serving.read_bytes()
    assert not certificates.advance(certificates.bundle(), now)
    assert certificates.serving.read_bytes() == served
