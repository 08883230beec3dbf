"""MODULE on the command line: from text to the :class:`Pipeline` that it names."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from thalweg.dataflows.pipeline import Pipeline
from thalweg.engine.errors import DefinitionError, ThalwegError

DEFAULT = "flow"
_PACKAGE = Path(__file__).parent.parent
_FROM_FILES: set[str] = set()  # modules that came from a path: another file of the same name may replace them


class LoadError(ThalwegError, ValueError):
    """MODULE names nothing, or what it names could not be imported; the message says where was looked."""


def load(text: str) -> Pipeline:
    """The pipeline that ``text`` names: ``package.module``, ``package.module:name`` or ``path/file.py[:name]``.

    Without a name it is the module's ``flow``, else its only Pipeline. The module's folder (for a dotted name the
    working folder) comes last in the search path, so a file of yours called ``queue.py`` breaks nothing.

    Raises:
        LoadError: nothing is there, or its code raised.
        DefinitionError: the definition is wrong; file and line stand in front.
    """
    target, _, attribute = text.partition(":")
    if not target:
        raise LoadError(f"MODULE is {text!r}; write a dotted name, such as my.module, or a file, such as pipeline.py")
    is_path = target.endswith(".py") or "/" in target
    try:
        module = _from_file(target) if is_path else _from_name(target)
    except DefinitionError as error:
        raise DefinitionError(f"{_place(error)}{error}") from error
    except ThalwegError:
        raise
    except Exception as error:
        raise LoadError(_what_it_raised(target, error)) from error
    return _pipeline_in(module, target, attribute)


def _from_file(target: str) -> ModuleType:
    path = Path(target).expanduser()
    if path.is_dir():
        raise LoadError(f"{target} is a folder; write the file, such as {path / 'pipeline.py'}")
    if not path.is_file():
        folder = path.parent
        near = [str(folder / name) for name in _near(path.name, (p.name for p in folder.glob("*.py")))]
        raise LoadError(f"there is no file {target}; looked in {folder.resolve()}.{_did_you_mean(near)}")
    path, name = path.resolve(), path.stem
    known = sys.modules.get(name)
    taken_by = getattr(known, "__file__", "Python itself")
    if known is not None and name not in _FROM_FILES and taken_by != str(path):
        raise LoadError(f"{target}: a module called {name!r} is loaded already, from {taken_by}; rename the file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{target} is no Python file; its name must end in .py")
    _search_last(path.parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # models are found by this name when their state is restored
    _FROM_FILES.add(name)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_name(target: str) -> ModuleType:
    _search_last(Path.cwd())
    try:
        return importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{target}.".startswith(f"{error.name}."):
            raise
        raise LoadError(_not_found(target, error.name)) from None


def _not_found(target: str, missing: str) -> str:
    folder = Path.cwd()
    if (folder / f"{target}.py").is_file():
        return f"the module {target!r} could not be imported; write {target}.py"
    parent, _, last = missing.rpartition(".")
    package = getattr(sys.modules.get(parent), "__path__", [])
    places = [Path(place) for place in package] if parent else [folder]
    names = [p.stem if p.suffix == ".py" else p.name for place in places for p in place.iterdir() if _importable(p)]
    near = [f"{parent}.{name}" if parent else name for name in _near(last, names)]
    where = f"{parent} has no such module" if parent else f"looked in {folder} and in what is installed"
    return (
        f"there is no module {missing!r}; {where}.{_did_you_mean(near)} "
        "MODULE is a dotted name, name:attribute or a path to a .py file"
    )


def _importable(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and path.name.isidentifier() and path.name != "__pycache__")


def _pipeline_in(module: ModuleType, target: str, attribute: str) -> Pipeline:
    pipelines = {name: value for name, value in vars(module).items() if isinstance(value, Pipeline)}
    if attribute:
        if attribute in pipelines:
            return pipelines[attribute]
        if hasattr(module, attribute):
            kind = type(getattr(module, attribute)).__name__
            raise LoadError(f"{target}:{attribute} is a {kind}, no Pipeline;{_holds(target, pipelines)}")
        raise LoadError(f"{target} has no {attribute!r};{_holds(target, pipelines)}")
    if DEFAULT in pipelines:
        return pipelines[DEFAULT]
    found = {id(value): value for value in pipelines.values()}
    if len(found) == 1:
        return next(iter(found.values()))
    raise LoadError(f"{target} has no Pipeline called {DEFAULT!r};{_holds(target, pipelines)}")


def _holds(target: str, pipelines: Iterable[str]) -> str:
    names = sorted(pipelines)
    if not names:
        return " it holds none: write flow = pipeline(...) in it"
    return f" it holds {', '.join(names)}: write {target}:{names[0]}"


def _what_it_raised(target: str, error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    if isinstance(error, ImportError) and "relative import" in str(error):
        dotted = ".".join(Path(target).with_suffix("").parts[-2:])
        return f"{_place(error)}{error}; give the module by its dotted name, such as {dotted}"
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = f"; install it into {sys.prefix}, or put it beside the module"
    return f"{_place(error)}{type(error).__name__}: {error}{hint}"


def _place(error: BaseException) -> str:
    """``file:line: `` of the innermost frame that is not ours."""
    found, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<") and not _is_ours(Path(name)):
            found = f"{name}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return found


def _is_ours(path: Path) -> bool:
    """True in the machinery; a pipeline that ships in ``dataflows/<folder>/`` counts as a user's."""
    if path == Path(importlib.__file__):
        return True
    if not path.is_relative_to(_PACKAGE):
        return False
    parts = path.relative_to(_PACKAGE).parts
    return not (parts[0] == "dataflows" and len(parts) > 2)


def _search_last(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _near(name: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, sorted(set(names)), n=3)


def _did_you_mean(near: list[str]) -> str:
    return f" Did you mean {' or '.join(near)}?" if near else ""
