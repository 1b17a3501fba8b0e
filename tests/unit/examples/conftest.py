"""Environments to audit: a made-up one, and the one these tests run in."""

import subprocess
import sys
from pathlib import Path

import pytest

from examples.workbench import EXAMPLES, make_environment


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("environments") / "made-up")


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environments") / "real"
    collect = EXAMPLES / "01-licence-audit" / "collect.py"
    subprocess.run([sys.executable, "-B", str(collect), str(folder)], check=True, capture_output=True)
    return folder
