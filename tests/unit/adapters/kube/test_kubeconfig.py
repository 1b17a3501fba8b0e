"""Kubeconfig files as kubectl reads them."""

import base64
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from triplane.adapters.kube.kubeconfig import load
from triplane.errors import InvalidInput, Unavailable


def write(path: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None, **context: str) -> Path:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", **context}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://example:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(document))
    return path


def test_a_token_and_a_namespace_are_taken(tmp_path: Path) -> None:
    access = load([write(tmp_path / "config", {"token": "t"}, namespace="demo")])
    assert (access.server, access.namespace, access.token) == ("https://example:6443", "demo", "t")
    assert access.exotic is None


def test_files_are_found_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    (tmp_path / "ca.pem").write_text("PEM")
    access = load([write(tmp_path / "config", {"tokenFile": "token"}, {"certificate-authority": "ca.pem"})])
    assert (access.token, access.authority) == ("from-file", "PEM")


def test_data_wins_over_nothing_and_is_decoded(tmp_path: Path) -> None:
    pem = base64.b64encode(b"CERT").decode()
    user = {"client-certificate-data": pem, "client-key-data": pem}
    access = load([write(tmp_path / "config", user, {"certificate-authority-data": pem})])
    assert (access.certificate, access.authority, access.token) == (("CERT", "CERT"), "CERT", None)


def test_the_first_file_with_the_name_wins(tmp_path: Path) -> None:
    files = [write(tmp_path / "a", {"token": "first"}), write(tmp_path / "b", {"token": "second"})]
    assert load(files).token == "first"


def test_an_exec_plugin_gives_the_token(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\nimport json, os\n"
        "asked = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "print(json.dumps({**asked, 'status': {'token': os.environ['GREETING'] + asked['kind']}}))\n"
    )
    plugin.chmod(stat.S_IRWXU)
    user = {"exec": {"command": str(plugin), "env": [{"name": "GREETING", "value": "hello-"}]}}
    assert load([write(tmp_path / "config", user)]).token == "hello-ExecCredential"


def test_an_exec_plugin_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no-such-plugin"):
        load([write(tmp_path / "config", {"exec": {"command": "no-such-plugin"}})])


@pytest.mark.parametrize(
    ("user", "cluster"),
    [
        pytest.param({"auth-provider": {"name": "oidc"}}, {}, id="a legacy provider"),
        pytest.param({"token": "t"}, {"proxy-url": "http://proxy"}, id="a proxy"),
    ],
)
def test_what_is_not_spoken_here_is_left_to_kubectl(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any]
) -> None:
    assert load([write(tmp_path / "config", user, cluster)]).exotic


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[1, 2]", "is not a kubeconfig", id="a list"),
        pytest.param("{", "cannot be read", id="broken YAML"),
        pytest.param("{}", "no current context", id="no context"),
        pytest.param('{"current-context": "x"}', "no context 'x'", id="a context that does not exist"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=said) as raised:
        load([path])
    assert str(path) in str(raised.value)
