"""What each process is told: its own account and settings, and nothing that belongs to another."""

import socket
from pathlib import Path

import pytest
from pydantic import SecretStr

from triplane import endpoints
from triplane.errors import InvalidInput
from triplane.localcluster.installation import up
from triplane.localcluster.ports import free_port, is_free
from triplane.localcluster.services import Service, postmaster_ready, services
from triplane.settings import Settings

ALL_SET = {
    "programs": Path("/programs"),
    "database_host": "db.example",
    "database_password": SecretStr("hush"),
    "namespace": "work",
    "allow_unisolated": True,
    "token": SecretStr("a-token"),
    "log_level": "DEBUG",
}


def by_name(settings: Settings) -> dict[str, Service]:
    return {service.name: service for service in services(settings)}


def test_the_embedded_database_starts_first_and_the_runner_last(tmp_path: Path) -> None:
    assert list(by_name(Settings(home=tmp_path))) == ["postgres", "admission", "gateway", "operator", "runner"]


def test_an_external_database_is_not_started(tmp_path: Path) -> None:
    assert "postgres" not in by_name(Settings(home=tmp_path, database_host="db.example"))


def test_each_has_its_own_kubeconfig_and_the_runner_none(tmp_path: Path) -> None:
    found = {
        name: service.process.env.get("TRIPLANE_KUBECONFIG")
        for name, service in by_name(Settings(home=tmp_path, kubeconfig=tmp_path / "admin")).items()
    }
    assert found == {
        "postgres": None,
        "admission": str(tmp_path / "secrets" / "kubeconfig-admission"),
        "gateway": str(tmp_path / "secrets" / "kubeconfig-gateway"),
        "operator": str(tmp_path / "secrets" / "kubeconfig-operator"),
        "runner": None,
    }


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "admission",
            {"KUBECONFIG", "ADMISSION_CERTIFICATE", "ADMISSION_KEY", "ADMISSION_CALLER", "LOG_LEVEL", "HOME"},
        ),
        ("gateway", {"KUBECONFIG", "DATABASE_HOST", "DATABASE_PASSWORD", "LOG_LEVEL", "HOME"}),
        ("operator", {"KUBECONFIG", "DATABASE_HOST", "DATABASE_PASSWORD", "LOG_LEVEL", "HOME", "NAMESPACE"}),
        ("runner", {"PROGRAMS", "ALLOW_UNISOLATED", "LOG_LEVEL", "HOME"}),
    ],
)
def test_each_is_told_what_it_needs_and_no_more(name: str, told: set[str], tmp_path: Path) -> None:
    process = by_name(Settings(home=tmp_path, **ALL_SET))[name].process  # type: ignore[arg-type]
    names = {key.removeprefix("TRIPLANE_") for key in process.env if key.startswith("TRIPLANE_")}
    assert names == told


@pytest.mark.parametrize("name", ["admission", "gateway", "operator", "runner"])
def test_what_it_is_told_are_settings_it_accepts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = by_name(Settings(home=tmp_path, **ALL_SET))[name].process  # type: ignore[arg-type]
    for key, value in process.env.items():
        monkeypatch.setenv(key, value)
    understood = Settings()
    assert understood.home == tmp_path
    assert understood.log_level == "DEBUG"
    assert understood.allow_unisolated is (name == "runner")


def test_a_new_release_makes_only_our_own_processes_outdated(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    old, new = (
        {service.name: service.process.fingerprint for service in services(settings, release)} for release in ("1", "2")
    )
    assert {name for name in old if old[name] != new[name]} == {"admission", "gateway", "operator", "runner"}


async def test_a_process_that_announced_nothing_is_not_ready(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert not await by_name(settings)["gateway"].ready()
    endpoints.announce(settings.run, "gateway", f"http://127.0.0.1:{free_port()}")
    assert not await by_name(settings)["gateway"].ready()


@pytest.mark.parametrize(
    ("lines", "ready"),
    [
        pytest.param(["77", *"abcdef", "ready   "], True, id="it accepts connections"),
        pytest.param(["77", *"abcdef", "starting"], False, id="it is starting"),
        pytest.param(["78", *"abcdef", "ready   "], False, id="the file is of an earlier server"),
        pytest.param(["77"], False, id="the file is half written"),
        pytest.param(None, False, id="there is no file"),
    ],
)
def test_postgres_is_ready_when_its_own_pidfile_says_so(lines: list[str] | None, ready: bool, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    if lines is not None:
        (tmp_path / "data" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    assert postmaster_ready(tmp_path, 77) is ready


def test_a_taken_port_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)
    assert not is_free(0)


NOBODYS = {
    "home": "each process is started with it",
    "kubeconfig": "each has its own",
    "token": "each has its own",
    "cache": "only what builds the control plane uses it",
    "origin_host": "only the migration uses it",
    "admission_host": "the API server that `up` starts reaches loopback",
    "admission_authority_seconds": "the supervisor makes the certificates",
    "admission_certificate_seconds": "the supervisor makes the certificates",
}
"""Settings that no process of an installation is told, and why."""


def test_every_setting_reaches_the_process_that_goes_by_it(tmp_path: Path) -> None:
    """One that is documented and told to nobody would change nothing."""
    settings = Settings(home=tmp_path)
    told = {name for name in Settings.model_fields if name not in NOBODYS}
    for name in told:
        object.__setattr__(settings, name, "other")  # anything but the default
    object.__setattr__(settings, "admission_replicas", 2)
    environments = [service.process.env for service in services(settings)]
    heard = {name for name in told if any(f"TRIPLANE_{name.upper()}" in env for env in environments)}
    assert told - heard == set()


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("anchors", "ftp://keeper.example/c", "'ftp' is no kind of anchor"),
        ("witnesses", "nonsense", "'nonsense' is no witness"),
    ],
)
async def test_settings_that_cannot_work_are_refused_before_anything_is_started(
    tmp_path: Path, setting: str, value: str, said: str
) -> None:
    home = tmp_path / "home"
    with pytest.raises(InvalidInput, match=said):
        await up(Settings(home=home, **{setting: value}))
    assert not home.exists()
