"""Structure is tested, not described: floors, sizes, names, what may import torch."""

from __future__ import annotations

import ast
import collections
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "genbench"
SOURCES = sorted(PACKAGE.rglob("*.py"))
REGISTERED_FOLDERS = {"models": "*/*.py", "metrics": "*.py", "data": "*.py", "features": "*.py"}
FILE_CAP, FUNCTION_CAP = 400, 60
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "manager", "base2", "data2", "tmp"}


def _lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, env={"PYTHONPATH": str(root), "PATH": ""})


def test_imports_only_run_downward():
    done = _lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


def test_a_floor_broken_on_purpose_is_caught(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "genbench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / "genbench" / "core" / "errors.py"
    target.write_text(target.read_text() + "\nimport genbench.report.leaderboard\n")
    done = _lint_imports(tmp_path)
    assert done.returncode != 0
    assert "genbench.core.errors -> genbench.report.leaderboard" in done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= FILE_CAP, f"{path.name} is longer than {FILE_CAP} lines: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            doc = ast.get_docstring(node, clean=False)
            length -= 0 if doc is None else doc.count("\n") + 1
            assert length <= FUNCTION_CAP, f"{path.name}:{node.lineno} `{node.name}` has {length} lines of code"


def test_no_file_is_named_for_what_is_not_understood():
    assert not [path for path in SOURCES if path.stem.strip("_") in FORBIDDEN_NAMES]


def _registered(path: Path) -> list[str]:
    classes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ClassDef)]
    calls = [call for node in classes for call in node.decorator_list if isinstance(call, ast.Call)]
    return [str(ast.literal_eval(c.args[0])) for c in calls if ast.unparse(c.func).startswith("register_")]


@pytest.mark.parametrize("folder", REGISTERED_FOLDERS)
def test_every_file_registers_its_own_name_and_no_other(folder):
    files = [path for path in (PACKAGE / folder).glob(REGISTERED_FOLDERS[folder]) if path.stem[0] != "_"]
    assert files
    for path in files:
        assert _registered(path) == [path.stem], path


def test_only_the_root_has_code_in_its_init():
    for path in SOURCES:
        if path.name == "__init__.py" and path.parent != PACKAGE:
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), path


def test_plans_stores_and_reports_run_without_torch():
    code = (
        "import sys; import genbench, genbench.plan, genbench.store, genbench.report.leaderboard, "
        "genbench.report.markdown, genbench.report.latex, genbench.report.grid, genbench.report.document, "
        "genbench.report.terminal, genbench.cli.main; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_code_keeps_the_manners_of_the_house(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    calls = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert "hasattr" not in calls, "ask a base class, not an attribute"
    assert "print" not in calls, "results go to stdout through a renderer, progress to stderr"
    assert (
        "pickle" not in text
        or path.name in {"cifar10.py", "npz.py"}
        or "allow_pickle=False" in text
        or "no pickle" in text
    )
    assert all(ord(char) < 128 for line in text.splitlines() if "#" in line for char in line.partition("#")[2]), "ASCII"


@pytest.mark.parametrize("name", ["suites", "reference_stats", "reports"])
def test_the_top_level_is_what_the_readme_promises(name):
    assert (ROOT / name).is_dir()


MODEL_FILES = [path for path in sorted((PACKAGE / "models").glob("*/*.py")) if path.stem[0] != "_"]


@pytest.mark.parametrize("path", MODEL_FILES, ids=lambda path: path.stem)
def test_every_number_that_a_model_can_be_set_to_has_a_range(path):
    settings = [
        field
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name in {"Config", "Sampling"}
        for field in node.body
        if isinstance(field, ast.AnnAssign)
    ]
    assert settings
    for field in settings:
        free = {"int", "float"} & set(ast.unparse(field.annotation).split(" | "))
        assert not free, f"{path.name}:{field.lineno} `{ast.unparse(field.target)}`: say its range, see core/ranges.py"


def test_no_two_files_of_tests_share_a_name():
    names = collections.Counter(path.name for path in ROOT.glob("tests/**/test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []  # pytest imports them by their names
