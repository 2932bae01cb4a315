"""File and function length, names, docstrings, and the constructs the house does without."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from architecture.house import (
    FORBIDDEN_FILE_NAMES,
    FRAMEWORK_BASES,
    MAX_FILE_LINES,
    MAX_FUNCTION_LINES,
    ROOT,
    SourceFile,
    package_sources,
    tracked_files,
)

SOURCES = package_sources()
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _id(source: SourceFile) -> str:
    return source.name


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _public_functions(source: SourceFile) -> Iterator[tuple[str, Function, ast.ClassDef | None]]:
    for node in source.tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node, None
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, Function) and not member.name.startswith("_"):
                    yield f"{node.name}.{member.name}", member, node


def _documented_members() -> dict[str, set[str]]:
    """Class name -> members whose text it inherits from a documented base of this package."""
    classes = {
        node.name: node for source in SOURCES for node in source.tree.body if isinstance(node, ast.ClassDef)
    }

    def members(name: str) -> set[str]:
        node = classes.get(name)
        if node is None:
            return set()
        own = {item.name for item in node.body if isinstance(item, Function) and ast.get_docstring(item)}
        return own.union(*(members(ast.unparse(base).split(".")[-1]) for base in node.bases))

    return {
        name: set().union(*(members(ast.unparse(b).split(".")[-1]) for b in node.bases))
        for name, node in classes.items()
    }


INHERITED = _documented_members()


def _is_framework_class(source: SourceFile, node: ast.ClassDef) -> bool:
    prefixes = [
        base for where, bases in FRAMEWORK_BASES.items() if source.name.startswith(where) for base in bases
    ]
    return any(ast.unparse(base).startswith(tuple(prefixes)) for base in node.bases)


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_a_file_stays_below_the_hard_stop(source):
    assert source.text.count("\n") <= MAX_FILE_LINES


def test_tests_and_experiments_stay_below_the_hard_stop():
    long = [
        path.relative_to(ROOT).as_posix()
        for path in tracked_files()
        if path.suffix == ".py" and path.read_text(encoding="utf-8").count("\n") > MAX_FILE_LINES
    ]
    assert not long


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_a_function_fits_on_a_screen(source):
    """Its code does: what the docstring says about shapes and units does not count."""
    long = [
        f"{source.name}:{node.lineno} {node.name}: {size} lines"
        for node in _functions(source.tree)
        if (size := _code_lines(node)) > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def _code_lines(node: Function) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def test_no_file_is_a_drawer_for_odds_and_ends():
    drawers = [
        path.relative_to(ROOT).as_posix()
        for path in tracked_files()
        if path.suffix == ".py" and path.stem.lstrip("_") in FORBIDDEN_FILE_NAMES
    ]
    assert not drawers


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_every_file_and_class_says_what_it_is(source):
    missing = [] if ast.get_docstring(source.tree) else [f"{source.name}: the module has no docstring"]
    missing += [
        f"{source.name}:{node.lineno} class {node.name} has no docstring"
        for node in source.tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_public_functions_have_numpydoc_docstrings(source):
    if source.path.name.startswith("_") and source.path.name != "__init__.py":
        pytest.skip("a private module has no public functions")
    faults = []
    for name, node, owner in _public_functions(source):
        text = ast.get_docstring(node)
        where = f"{source.name}:{node.lineno} {name}"
        if owner is not None and (
            node.name in INHERITED.get(owner.name, set()) or _is_framework_class(source, owner)
        ):
            continue  # what the method is for stands where it was first declared
        if not text:
            faults.append(f"{where}: no docstring")
            continue
        if source.floor == "simulators" or (source.floor == "cli" and node.name == "run"):
            continue  # equations of the house form, and verbs, whose text is what --help shows
        decorators = {ast.unparse(item).split("(")[0].split(".")[-1] for item in node.decorator_list}
        if "command" in decorators:
            continue
        parameters = _parameters(node, method=owner is not None)
        # A method with a single argument may describe it in its sentence; anything longer needs the section.
        if owner is not None and len(parameters) <= 1:
            continue
        if parameters and not re.search(r"^Parameters\n-{10}$", text, re.MULTILINE):
            faults.append(f"{where}: no Parameters section")
        else:
            faults += [
                f"{where}: parameter {p!r} is not described"
                for p in parameters
                if not re.search(rf"\b{p}\b", text)
            ]
    assert not faults, "\n".join(faults)


def _parameters(node: Function, *, method: bool) -> list[str]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    names = [item.arg for item in arguments]
    return [name for name in names if not (method and name in {"self", "cls"})]


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_no_type_is_guessed_and_no_chain_of_parents_is_called(source):
    """`hasattr` hides a missing contract, `super()` a chain of parents; only framework classes need it."""
    tolerated = {
        id(call)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and _is_framework_class(source, node)
        for call in ast.walk(node)
    }
    found = [
        f"{source.name}:{node.lineno} {node.func.id}()"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (node.func.id == "hasattr" or (node.func.id == "super" and id(node) not in tolerated))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_nothing_prints_below_the_command_line(source):
    if source.floor in {"cli", "app"}:
        pytest.skip("the command line prints")
    prints = [
        f"{source.name}:{node.lineno}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"print", "sys.stdout.write", "sys.stderr.write"}
    ]
    assert not prints, "\n".join(prints)


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_no_exception_is_swallowed_and_nothing_is_left_undone(source):
    faults = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                faults.append(f"{source.name}:{node.lineno}: bare except")
            if len(node.body) == 1 and isinstance(node.body[0], ast.Pass):
                faults.append(f"{source.name}:{node.lineno}: exception swallowed")
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node):
            faults.append(f"{source.name}:{node.lineno}: NotImplementedError")
    faults += [f"{source.name}: {word}" for word in re.findall(r"TODO|FIXME|HACK", source.text)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_options_are_not_forwarded_as_loose_keywords(source):
    """`**kwargs` forwarded through layers loses values silently; Keras constructors are the one exception."""
    tolerated = {
        id(member)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and _is_framework_class(source, node)
        for member in ast.walk(node)
    }
    loose = [
        f"{source.name}:{node.lineno} {node.name}(**{node.args.kwarg.arg})"
        for node in _functions(source.tree)
        if node.args.kwarg is not None and id(node) not in tolerated
    ]
    assert not loose, "\n".join(loose)


def test_no_global_random_state_is_used():
    """Seeds travel as generators; numpy's global functions would make results depend on call order."""
    used = [
        f"{source.name}:{node.lineno} {text}"
        for source in SOURCES
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and re.fullmatch(
            r"(np|numpy)\.random\.(?!Generator|Philox|SeedSequence|default_rng)\w+",
            text := ast.unparse(node.func),
        )
    ]
    assert not used, "\n".join(used)
