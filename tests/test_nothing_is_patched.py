"""No module of the library replaces a name at run time, its own or another's; one emulation is the exception, and is listed."""

from __future__ import annotations

import ast
from pathlib import Path

import fluxsr

ROOT = Path(fluxsr.__file__).parent

# PyTorch has no autocast for the meta device. These three names are replaced for the time of a plan, in one context.
EMULATION = {
    # A lazily imported name is kept where it was asked for: nothing that was there is replaced.
    "lazy.py": {"setattr(sys.modules[package], name, value)"},
    # Pillow's limit on pixels is a setting, which has no other place; the reader has a limit of its own.
    "images/read.py": {"Image.MAX_IMAGE_PIXELS", "PngImagePlugin.MAX_TEXT_CHUNK"},
    # The calls of a copy of the autoencoder that nobody else holds are measured; it stays of its class, which says what it is.
    "evaluation/systems.py": {"setattr(autoencoder, stage, meter.stage(stage)(getattr(autoencoder, stage)))"},
    "like_gpu.py": {"torch.autocast", "torch.clear_autocast_cache", "autograd.has_torch_function"},
}


def replaced(tree: ast.AST) -> set[str]:
    """Attributes of imported modules and of classes that the code assigns to, and functions that it hangs on objects."""
    imported = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    found = set()
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in [leaf for one in targets for leaf in (one.elts if isinstance(one, ast.Tuple) else [one])]:
            if not isinstance(target, ast.Attribute):
                continue
            owner = ast.unparse(target.value)
            value = node.value
            function = isinstance(value, ast.Lambda) or (isinstance(value, ast.Name) and value.id in functions)
            foreign = owner.split(".")[0] in {*imported, "autograd"} and owner != "sys"
            if foreign or (function and owner not in ("self", "cls", "ctx")):
                found.add(ast.unparse(target))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            found.add(ast.unparse(node))
    return found


def test_no_name_is_replaced():
    for path in sorted(ROOT.rglob("*.py")):
        source, name = path.read_text(), path.relative_to(ROOT).as_posix()
        assert "unittest" not in source and "monkeypatch" not in source, name
        assert replaced(ast.parse(source)) == EMULATION.get(name, set()), name


def test_the_search_finds_what_it_is_for():
    for line in ("torch.autocast = f", "a, torch.x.y = f, g", "module.encode = lambda: 0", "setattr(model, 'step', f)"):
        assert replaced(ast.parse(f"import torch\n{line}")), line
    assert replaced(ast.parse("def error(): pass\nparser.error = error")) == {"parser.error"}
