"""`make test` fails when a tier, a module or a test could not run."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiers import LANES, TIERS

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
    (tmp_path / "tests" / "contract" / "conftest.py").write_text("")  # as there are; pytest has paths of its own then
    return tmp_path


def test_all_tiers_ran(root: Path) -> None:
    done = run_tiers(root)
    assert done.returncode == 0, done.stdout + done.stderr
    for lane, tiers in LANES.items():
        assert f"{len(tiers)} passed" in "".join(
            line for line in done.stdout.splitlines() if line.startswith(f"{lane} | ")
        )
    assert sorted(TIERS) == sorted(tier for tiers in LANES.values() for tier in tiers)
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


_SECOND_TIME = """
from pathlib import Path
def test_it():
    seen = Path(__file__).with_name("seen")
    first = not seen.exists()
    seen.touch()
    assert not first
"""
_NEVER = "def test_it(): assert False\n"


@pytest.mark.parametrize(
    ("sources", "code", "said"),
    [
        pytest.param({"e2e": _SECOND_TIME}, 0, "flaky: tests/e2e/test_e2e.py::test_it", id="one that passes alone"),
        pytest.param({"e2e": _NEVER}, 1, "", id="one that never passes"),
        pytest.param({"unit": _SECOND_TIME}, 1, "", id="one of a tier that has no excuse"),
        pytest.param({"unit": _NEVER, "e2e": _SECOND_TIME}, 1, "", id="one that may be flaky beside one that is not"),
        pytest.param(
            dict.fromkeys(("integration", "e2e", "faults", "attacks"), _SECOND_TIME), 1, "", id="too many at once"
        ),
    ],
)
def test_whole_installations_get_a_second_look_and_nothing_else_does(
    root: Path, sources: dict[str, str], code: int, said: str
) -> None:
    for tier, source in sources.items():
        (root / "tests" / tier / f"test_{tier}.py").write_text(source + "def test_that(): pass\n")
    done = run_tiers(root)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr
    assert bool(said) == ("flaky: " in done.stderr)
