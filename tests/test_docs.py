"""What the texts say is true of the code: examples run, links lead somewhere, lists agree."""

from __future__ import annotations

import ast
import doctest
import re
import tomllib
from pathlib import Path

import pytest

import saddlepoint

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [path for path in TEXTS if "_build" not in path.parts]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
_FENCE = re.compile(r"^```(\{doctest\}|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks(kind: str) -> list[tuple[str, str]]:
    texts = [p for p in TEXTS if p.name != "design.md"]  # holds signatures, not programs
    found = [(p, m) for p in texts for m in _FENCE.finditer(p.read_text(encoding="utf-8")) if m[1] == kind]
    return [(f"{p.relative_to(ROOT)}:{m.start()}", m[2]) for p, m in found]


def _where(value: str) -> str:
    return value if "\n" not in value else ""


def _names(requirements: list[str]) -> set[str]:
    heads = (re.match(r"[A-Za-z0-9_.-]+", line) for line in requirements if isinstance(line, str))
    return {head[0].lower().replace("_", "-") for head in heads if head}


@pytest.mark.parametrize(("where", "text"), _blocks("{doctest}"), ids=_where)
def test_examples_of_the_documentation_run(where: str, text: str) -> None:
    runner = doctest.DocTestRunner()
    example = doctest.DocTestParser().get_doctest(text, {}, where, where, 0)
    assert example.examples
    runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize(("where", "text"), _blocks("python"), ids=_where)
def test_other_python_in_the_texts_uses_names_that_exist(where: str, text: str) -> None:
    names = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sp"
    }
    assert names <= set(saddlepoint.__all__)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_the_texts_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target and " " not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_every_public_name_is_there() -> None:
    missing = [name for name in saddlepoint.__all__ if not hasattr(saddlepoint, name)]
    assert missing == []


def test_the_type_checker_sees_the_same_public_names() -> None:
    tree = ast.parse((ROOT / "src/saddlepoint/__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen | {"__version__"} == set(saddlepoint.__all__)
    assert {*saddlepoint._HOME, "__version__"} == set(saddlepoint.__all__)


def test_the_house_is_drawn_as_it_stands() -> None:
    design = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    rooms = {path.name for path in (ROOT / "src/saddlepoint").iterdir() if (path / "__init__.py").exists()}
    assert {room for room in rooms if f"\n      {room}/ " not in design} == set()


def test_the_readme_names_two_commands_to_set_up_and_only_targets_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\$ make (\w+)", readme, re.MULTILINE) == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", readme)) <= targets


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 100


def test_every_dependency_is_pinned_by_version_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", pin)] == []
    assert "torch==2.13.0" in pins
    groups = PROJECT["dependency-groups"]
    wanted = [*PROJECT["project"]["dependencies"], *groups["test"], *groups["lint"], *groups["docs"], "pip"]
    assert _names(wanted) - _names(pins) == set()


def test_one_version_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert saddlepoint.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {version} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'release = "{version}"' in (ROOT / "docs/conf.py").read_text(encoding="utf-8")
