"""The thinker adds up, and says what it costs as it goes on."""

from pathlib import Path

from examples.workbench import PROGRAMS, start


def test_it_adds_and_tells_what_it_has_used_after_every_number(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_text("3 1 4")
    order = {
        "inputs": [{"name": "numbers", "path": str(tmp_path / "numbers")}],
        "outputs": [{"name": "sum", "path": str(tmp_path / "sum.txt")}],
    }
    said = start(PROGRAMS / "thinker" / "main.py", order, tmp_path, {"TOKENS": "100"})
    assert [line["inputTokens"] for line in said if line["type"] == "usage"] == [100, 200, 300]
    assert next(line for line in said if line["type"] == "reflection")["wentWell"] == ["3 numbers added for 300 tokens"]
    assert (tmp_path / "sum.txt").read_text() == "8\n"
