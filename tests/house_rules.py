"""The rules of the house, as functions from one parsed source file to complaints.

A path is relative to the top of the repository, such as ``engine/features/plan.py``. What a rule says of
dynamic imports (`importlib.import_module(name)`) is nothing: a rule reads the text.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("engine", "connectors", "dataflows")

Rule = Callable[[str, ast.Module], Iterator[str]]

LAYERS = {"engine/kernels": 0, "engine": 1, "connectors": 2, "dataflows": 3}

# Where a library may be imported: a path that starts with one of these.
PLACES = {
    "bytewax": ("connectors/", "dataflows/"),
    "confluent_kafka": ("connectors/",),
    "noida_db": ("connectors/",),
    "river": ("engine/learning/river.py", "engine/learning/lowered/", r"dataflows/\w+/"),
    "numba": ("engine/kernels/",),
    "alibi_detect": (r"dataflows/\w+/",),
}

# What the engine never imports, because its results must be a function of its arguments.
IMPURE_MODULES = {
    *("asyncio", "concurrent", "multiprocessing", "threading", "_thread"),
    *("glob", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile", "urllib", "http"),
    *("secrets", "uuid", "time", "logging", "signal", "getpass", "platform"),
}
IMPURE_CALLS = {"print", "open", "input", "breakpoint", "exec", "eval"}
IMPURE_ATTRIBUTES = {
    *("np.random", "numpy.random", "sys.stdout", "sys.stderr", "sys.stdin", "sys.argv"),
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
}
# The kernel decorator reads the kernels' own source, to know when Numba's disk cache is stale.
READS_ITS_OWN_SOURCE = {"engine/kernels/jit.py": {"pathlib"}}


def sources() -> list[str]:
    """Every Python file that is installed, relative to the top."""
    files = [ROOT / "src/thalweg/__init__.py", *(f for name in FOLDERS for f in (ROOT / name).rglob("*.py"))]
    return sorted(str(file.relative_to(ROOT)) for file in files if "templates" not in file.parts)


def imports_point_one_way(path: str, tree: ast.Module) -> Iterator[str]:
    """kernels <- engine <- connectors <- dataflows; nobody imports tests or benchmarks."""
    mine = _layer(path)
    for line, module in imported(path, tree):
        top, *rest = module.split(".")
        if top in {"tests", "benchmarks"}:
            yield f"{path}:{line} imports {module}; nobody imports {top}"
        elif top in FOLDERS:
            yield f"{path}:{line} imports {module}; write thalweg.{module}"
        elif top == "thalweg" and _layer("/".join(rest) + "/") > mine and not _is_a_pipeline(path):
            yield f"{path}:{line} imports {module}, which stands above it"


def libraries_have_their_place(path: str, tree: ast.Module) -> Iterator[str]:
    """Each library that shapes code around itself is imported in one place only."""
    for line, module in imported(path, tree):
        places = PLACES.get(module.split(".")[0])
        if places is not None and not any(re.match(place, path) for place in places):
            yield f"{path}:{line} imports {module}, which belongs in {' or '.join(places)}"


def dependencies_are_declared(path: str, tree: ast.Module) -> Iterator[str]:
    """What is imported is in pyproject.toml: an indirect dependency may go away any day."""
    known = declared_modules() | set(sys.stdlib_module_names) | {"thalweg", *FOLDERS, "tests", "benchmarks"}
    for line, module in imported(path, tree):
        if module.split(".")[0] not in known:
            yield f"{path}:{line} imports {module}, which pyproject.toml does not name"


def the_engine_is_pure(path: str, tree: ast.Module) -> Iterator[str]:
    """No I/O, clock, randomness, threads, environment or print in engine/."""
    if not path.startswith("engine/"):
        return
    for line, module in imported(path, tree):
        top = module.split(".")[0]
        if top in IMPURE_MODULES - READS_ITS_OWN_SOURCE.get(path, set()) or module.startswith("random."):
            yield f"{path}:{line} imports {module}; the engine is pure"
    for node in ast.walk(tree):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called in IMPURE_CALLS or called.startswith("random."):  # isinstance(x, random.Random) may be
            yield f"{path}:{node.lineno} calls {called}(); the engine is pure"
        if isinstance(node, ast.Attribute) and _ends_with(ast.unparse(node), IMPURE_ATTRIBUTES):
            yield f"{path}:{node.lineno} uses {ast.unparse(node)}; the engine is pure"


def kernels_stay_home(path: str, tree: ast.Module) -> Iterator[str]:
    """@kernel only in engine/kernels, Numba's own decorators only in jit.py, kernels are not closures."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for name in map(_decorator, function.decorator_list):
            if name not in {"kernel", "njit", "jit", "vectorize", "guvectorize", "stencil", "cfunc"}:
                continue
            if not path.startswith("engine/kernels/"):
                yield f"{path}:{function.lineno} {function.name} is @{name} outside engine/kernels"
            elif name != "kernel":
                yield f"{path}:{function.lineno} {function.name} is @{name}; write @kernel from jit.py"
            elif function not in tree.body:
                yield f"{path}:{function.lineno} {function.name} is a closure; Numba never caches it on disk"


RULES: tuple[Rule, ...] = (
    imports_point_one_way,
    libraries_have_their_place,
    dependencies_are_declared,
    the_engine_is_pure,
    kernels_stay_home,
)


def imported(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import, wherever it stands; `from a import b` gives `a.b`."""
    package = "/".join(["thalweg", *path.removeprefix("src/thalweg/").split("/")[:-1]]).split("/")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def declared_modules() -> set[str]:
    """Import names of the dependencies, the extras `demo` and `alibi` included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = [*project["dependencies"], *extras["demo"], *extras["alibi"]]
    return {re.split(r"[^\w-]", name)[0].replace("-", "_").lower() for name in names}


def _layer(path: str) -> int:
    below = [layer for folder, layer in LAYERS.items() if path.startswith(folder + "/")]
    return min(below, default=4)  # thalweg/__init__.py stands above everything


def _is_a_pipeline(path: str) -> bool:
    """A pipeline that we ship is written as a user would write it: `from thalweg import Stream`."""
    return re.match(r"dataflows/\w+/", path) is not None


def _ends_with(text: str, names: set[str]) -> bool:
    return any(text == name or text.endswith("." + name) for name in names)


def _decorator(node: ast.expr) -> str:
    target = node.func if isinstance(node, ast.Call) else node
    return ast.unparse(target).split(".")[-1]
