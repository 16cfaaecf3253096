"""The import graph of files: no circle and no arrow upward, function-level imports included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fluxsr"

# Who may import whom, besides itself and the ground floor; `cli` and `app` are known by nobody.
GROUND = {
    "",
    "atomic",
    "digest",
    "lazy",
    "ledger",
    "like_gpu",
    "processes",
    "progress",
    "protocols",
    "shipped_configs",
    "sizes",
}
ALLOWED: dict[str, set[str]] = {
    "flows": set(),
    "losses": set(),
    "images": set(),
    "data": {"images"},
    "models": set(),
    "training": {"flows", "losses", "models", "data", "images"},
    "inference": {"models", "flows", "images"},
    "evaluation": {"inference", "models", "losses", "images", "data"},
    "planning": {"training", "flows", "losses", "models", "data", "images"},
    "app": {"inference", "images"},
    "demo": {"evaluation", "training", "inference", "models", "data", "images", "flows", "losses"},
    "cli": {
        "app",
        "demo",
        "planning",
        "evaluation",
        "inference",
        "training",
        "models",
        "data",
        "images",
        "flows",
        "losses",
    },
}

# Arrows and circles that are still to go, as "importer -> imported"; the test fails when one of them is gone.
KNOWN: set[str] = set()


def modules() -> dict[str, Path]:
    """Every module of the library by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(tree: ast.AST):
    """All import statements, those in functions too, but none that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif is_type_checking(node):
            for other in node.orelse:
                yield from statements(other)
        else:
            yield from statements(node)


def lazy_names(tree: ast.AST) -> dict[str, str]:
    """The module below a package that each of its lazy names lives in (``fluxsr.lazy``)."""
    for node in ast.walk(tree):
        if is_type_checking(node):
            return {
                name.name: str(one.module) for one in node.body if isinstance(one, ast.ImportFrom) for name in one.names
            }
    return {}


def imports_of(name: str, trees: dict[str, ast.AST]) -> set[str]:
    """The modules of the library that a module imports; a lazy package's name is its home's."""
    found = set()
    for node in statements(trees[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in trees}
            continue
        assert node.level == 0, f"{name} imports relatively"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            if whole in trees:
                found.add(whole)
            elif node.module in trees:
                home = lazy_names(trees[node.module]).get(alias.name)
                found.add(home or node.module)
    return found - {name}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules().items()}
    return {name: imports_of(name, trees) for name in trees}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one module (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = set()
            while node not in component:
                component.add(stack.pop())
            if len(component) > 1:
                found.append(component)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_no_circles_between_files(graph):
    inside = [" <-> ".join(sorted(component)) for component in circles(graph)]
    assert set(inside) == {entry for entry in KNOWN if "<->" in entry}


def test_no_arrow_upward(graph):
    upward = {
        f"{name} -> {target}"
        for name, targets in graph.items()
        for target in targets
        if room(name) in ALLOWED
        and room(target) not in {room(name), *GROUND}
        and room(target) not in ALLOWED[room(name)]
    }
    assert upward == {entry for entry in KNOWN if "<->" not in entry}


def test_every_room_has_a_rule(graph):
    rooms = {room(name) for name in graph} - GROUND - {"__main__"}
    assert rooms <= set(ALLOWED)


def test_a_function_level_import_counts_and_a_type_checkers_does_not():
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import unseen\n"
        "def f():\n    if x:\n        import seen\n"
    )
    names = {alias.name for node in statements(tree) for alias in node.names}
    assert names == {"TYPE_CHECKING", "seen"}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


def test_the_commands_are_known_by_nobody_and_only_parse_call_and_print(graph):
    users = {name for name, targets in graph.items() for target in targets if room(target) == "cli" != room(name)}
    assert users == {"fluxsr.__main__"}
    for path in (PACKAGE / "cli").glob("*.py"):
        if path.name not in ("__init__.py", "main.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert "main" in functions and len(functions) <= 2, path.name
            assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(tree)), path.name


def test_no_two_files_have_one_name():
    """But a command's file and the one module that it calls, which are found together."""
    places: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.stem not in ("__init__", "__main__"):
            places.setdefault(path.stem, []).append(path.relative_to(PACKAGE).as_posix())
    twice = {name: sorted(files) for name, files in places.items() if len(files) > 1}
    assert all(len(files) == 2 and f"cli/{name}.py" in files for name, files in twice.items()), twice
