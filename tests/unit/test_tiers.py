"""`make test` fails when a tier, a module or a test could not run."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiers import TIERS

_MAIN = "import sys, pathlib; from tests.tiers import main; sys.exit(main([], pathlib.Path(sys.argv[1])))"
_PASSES = "def test_it(): pass\n"


def run_tiers(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _MAIN, str(root / "tests")],
        cwd=root,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository in which every tier has one test that passes."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib -p no:cacheprovider\n")
    for tier in TIERS:
        (tmp_path / "tests" / tier).mkdir(parents=True)
        (tmp_path / "tests" / tier / f"test_{tier}.py").write_text(_PASSES)
    return tmp_path


def test_all_tiers_ran(root: Path) -> None:
    done = run_tiers(root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(TIERS)} passed" in done.stdout
    assert "tiers: unit 1, simulation 1, contract 1, integration 1, e2e 1, faults 1, attacks 1" in done.stdout


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        pytest.param(None, "no test ran in: attacks", id="a tier without tests"),
        pytest.param(
            "import pytest\n@pytest.mark.skip\n" + _PASSES + "def test_that(): pass\n",
            "skipped: tests/attacks/test_attacks.py::test_it",
            id="a skipped test beside one that ran",
        ),
        pytest.param(
            "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\ndef test_that(): pass\n",
            "skipped: tests/attacks/test_attacks.py::test_it",
            id="a test that is expected to fail",
        ),
        pytest.param("def test_it(): assert False\n", "no test ran in: attacks", id="a failing tier"),
    ],
)
def test_what_did_not_run_fails(root: Path, source: str | None, complaint: str) -> None:
    file = root / "tests" / "attacks" / "test_attacks.py"
    file.unlink() if source is None else file.write_text(source)
    done = run_tiers(root)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_a_module_that_skips_itself_fails(root: Path) -> None:
    module = root / "tests" / "e2e" / "test_more.py"
    module.write_text("import pytest\npytest.importorskip('no_such_module')\n" + _PASSES)
    done = run_tiers(root)
    assert done.returncode == 1
    assert "skipped: tests/e2e/test_more.py" in done.stderr
