"""Runs the example programs as the session host does: processes with a work order and folders of their own."""

import base64
import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
PROGRAMS = EXAMPLES / "programs"
OUTPUTS = (
    ("report", "report.md", "text/markdown"),
    ("audit", "audit.json", "application/json"),
    ("chart", "chart.svg", "image/svg+xml"),
)


@dataclass(frozen=True)
class Ran:
    """What one run left: its lines of the exec protocol and its outputs."""

    lines: Sequence[Mapping[str, Any]]
    outputs: Path

    def said(self, kind: str) -> list[Mapping[str, Any]]:
        return [line for line in self.lines if line["type"] == kind]


def produce(
    environment: Path,
    folder: Path,
    *,
    entrypoint: str = "main.py",
    findings: Sequence[str] = (),
    defect: str = "",
) -> Ran:
    outputs = folder / "outputs"
    outputs.mkdir(parents=True)
    order = {
        "role": "producer",
        "inputs": [{"name": "environment", "path": str(environment)}],
        "outputs": [{"name": n, "path": str(outputs / p), "mediaType": m} for n, p, m in OUTPUTS],
        "findings": list(findings),
    }
    env = {"DEFECT": defect} if defect else {}
    return Ran(start(PROGRAMS / "licence_audit" / entrypoint, order, folder, env), outputs)


def review(
    environment: Path, produced: Path, folder: Path, *, program: Path = PROGRAMS / "recompute_review"
) -> dict[str, Any]:
    """The verdict on the outputs in ``produced``."""
    folder.mkdir(parents=True)
    subjects = [
        {"name": name, "path": str(produced / path), "digest": digest(produced / path)} for name, path, _ in OUTPUTS
    ]
    verdict = folder / "verdict.json"
    order = {
        "role": "reviewer",
        "inputs": [{"name": "environment", "path": str(environment)}],
        "outputs": [{"name": "verdict", "path": str(verdict), "mediaType": "application/json"}],
        "review": {"subjects": subjects, "contract": []},
    }
    start(program / "main.py", order, folder, {})
    loaded: dict[str, Any] = json.loads(verdict.read_text())
    assert loaded["subjects"] == [{"name": s["name"], "digest": s["digest"]} for s in subjects]
    return loaded


def start(program: Path, order: Mapping[str, Any], folder: Path, env: Mapping[str, str]) -> list[Mapping[str, Any]]:
    path = folder / "order.json"
    path.write_text(json.dumps(order))
    done = subprocess.run(
        [sys.executable, "-B", str(program)],
        env={"TRIPLANE_WORK_ORDER": str(path), "LANG": "C.UTF-8", **env},
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def program_modules(program: str, *names: str) -> Iterator[list[ModuleType]]:
    """Import modules of a program folder, and leave no trace of them."""
    folder = str(PROGRAMS / program)
    before, writing = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    try:
        yield [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(folder)
        sys.dont_write_bytecode = writing
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
                del sys.modules[name]


def make_environment(folder: Path) -> Path:
    """A made-up environment in which every rule meets a case."""
    folder.mkdir()
    wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: {}\nTag: py3-none-any\nTag: py2-none-any\n"
    _install(folder, "Plain.Name", "1.0", "License-Expression: MIT\n", {"WHEEL": wheel.format("true")})
    _install(
        folder,
        "dual",
        "2.0",
        "License-Expression: MPL-2.0 AND\n (Apache-2.0 OR MIT)\n",
        {"licenses/a/LICENSE": "text"},
    )
    _install(
        folder,
        "old",
        "3",
        "License: Apache License, Version 2.0\n",
        {"WHEEL": wheel.format("false"), "COPYING": "c"},
    )
    text = "License: Permission is granted\n        to anyone\n        \n        for anything\n"
    classifier = "Classifier: License :: OSI Approved :: BSD License\nClassifier: License :: OSI Approved\n"
    _install(folder, "long-text", "4", text + classifier, {"LICENSE.txt": "bsd"})
    osi = "Classifier: License :: OSI Approved :: "
    both = f"{osi}MIT License\n{osi}GNU General Public License v3 (GPLv3)\n"
    _install(folder, "two_ways", "5", both, {"INSTALLER": "pip\n"})
    _install(
        folder,
        "silent",
        "6",
        "License: UNKNOWN\n",
        {"direct_url.json": '{"url": "file:///src", "dir_info": {"editable": true}}'},
    )
    _install(
        folder,
        "strange",
        "7",
        "License: Do | what \\ you like\n",
        {"direct_url.json": '{"url": "https://x/y", "vcs_info": {}}'},
    )
    _install(
        folder,
        "strong",
        "8",
        "License-Expression: GPL-3.0-or-later WITH GCC-exception-3.1\n",
        {"INSTALLER": "a/b~c"},
    )
    with (folder / "silent-6.dist-info" / "RECORD").open("a") as record:
        record.write('silent/__pycache__/x.pyc,,\n"silent/a,b.py",,10\nsilent/weak.py,md5=abc,7\n')
    altered = folder / "strange-7.dist-info" / "METADATA"
    altered.write_text(altered.read_text() + "altered after the installation\n")
    collected = {"python": "3.11.2", "distributions": 8, "skipped": ["egg"]}
    (folder / "collected.json").write_text(json.dumps(collected))
    return folder


def _install(folder: Path, name: str, version: str, licence: str, files: Mapping[str, str]) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{licence}Keywords: x\n\nLicense: body\n"
    rows = []
    for path, content in {"METADATA": metadata, "INSTALLER": "uv", **files}.items():
        target = info / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        value = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{info.name}/{path},sha256={value},{len(content)}")
    (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")
