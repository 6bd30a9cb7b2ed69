"""The numbers to live by (docs/design.md, "How code reads here"), as tests over the syntax trees of src/."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "saddlepoint"
FILES = sorted(SRC.rglob("*.py"))
LENGTHS = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
OPTIONAL = {"ray", "httpx", "timm", "skops", "vnnlib"}  # the packages of pyproject's extras


def _room(path: Path) -> str:
    return path.relative_to(SRC).parts[0]


def _module(path: Path) -> str:
    parts = ("saddlepoint", *path.relative_to(SRC).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTION):
                yield f"{path.relative_to(SRC)}:{node.lineno} {node.name}", node


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    packed = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return len(named) + len(packed) - (1 if named and named[0].arg in ("self", "cls") else 0)


def _at_import(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when the module is imported: not those of functions, nor of `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
        elif not isinstance(node, (*FUNCTION, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def _targets(node: ast.Import | ast.ImportFrom, known: set[str]) -> set[str]:
    """The modules of this package that an import statement runs."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & known
    named = {f"{node.module}.{alias.name}" for alias in node.names} & known
    # `from package import submodule` needs the submodule; any other name needs the package itself
    return named if len(named) == len(node.names) else named | ({node.module or ""} & known)


def test_no_file_is_over_500_lines() -> None:
    assert {str(p.relative_to(SRC)): n for p, n in LENGTHS.items() if n > 500} == {}


def test_files_are_short() -> None:
    lengths = sorted(LENGTHS.values())
    assert statistics.median(lengths) <= 150
    assert statistics.quantiles(lengths, n=10, method="inclusive")[-1] <= 350


def test_functions_are_at_most_60_lines() -> None:
    lines = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in _functions()}
    assert {name: n for name, n in lines.items() if n > 60} == {}


def test_functions_take_at_most_7_parameters() -> None:
    counts = {name: _parameters(node) for name, node in _functions()}
    assert {name: n for name, n in counts.items() if n > 7} == {}


def test_nothing_is_printed_below_the_command_line() -> None:
    found = [
        f"{path.relative_to(SRC)}:{node.lineno}"
        for path, tree in TREES.items()
        if _room(path) != "cli"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


# what a small verification does not need, and what costs tenths of a second to import
LATE = {"onnx", "google", "onnxruntime", "safetensors", "highspy"}


def test_imports_stand_at_the_top_except_in_adapters_and_cli_and_of_heavy_packages() -> None:
    found = [
        f"{path.relative_to(SRC)}:{inner.lineno}"
        for path, tree in TREES.items()
        if _room(path) not in ("adapters", "cli")
        for node in ast.walk(tree)
        if isinstance(node, FUNCTION)
        for inner in ast.walk(node)
        if isinstance(inner, (ast.Import, ast.ImportFrom)) and not _packages(inner) <= LATE
    ]
    assert found == []


def _packages(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return {name.split(".")[0] for name in names}


def test_optional_packages_come_only_through_the_one_door() -> None:
    found = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.relative_to(SRC)}: {n}" for n in names if n.split(".")[0] in OPTIONAL]
    assert found == []


def test_no_module_imports_itself_through_others() -> None:
    modules = {_module(path): tree for path, tree in TREES.items()}
    edges = {
        name: set[str]().union(*(_targets(node, set(modules)) for node in _at_import(tree))) - {name}
        for name, tree in modules.items()
    }
    while leaves := {name for name, targets in edges.items() if not targets}:
        edges = {name: targets - leaves for name, targets in edges.items() if name not in leaves}
    assert edges == {}, "what is left stands on a cycle or above one"


@pytest.mark.parametrize("heavy", ["torch", "numpy", "sklearn", "onnx"])
def test_importing_the_package_is_light(heavy: str) -> None:
    code = f"import sys, saddlepoint; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    import saddlepoint

    with pytest.raises(AttributeError, match="from_torch"):
        _ = saddlepoint.from_tensorflow
    assert "Linf" in dir(saddlepoint)
