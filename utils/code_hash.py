"""Which code a result comes from: a hash of each file's definitions that had a part in it.

From some functions on, every definition of the library that they name is followed, and what those name. So
a loss weight counts, and a method beside it doesn't; comments, docstrings, messages, type hints and layout
never do. Nothing is imported: source is read, once a process, as it is when the work begins.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

CodeHash = dict[str, str]
"""{file of the library: hash of what of it was reached}"""

_FOLDER = Path(__file__).resolve().parents[1]
_LIBRARY = Path(__file__).resolve().parent.name
_CLASS_BY_NAME = re.compile(rf"({_LIBRARY}(?:\.\w+)+):(\w+)")  # as registries have what is imported later

# Rooms and definitions that decide about no weight and no pixel: they say, write and keep. `config` gives
# values, which are compared themselves.
_DECIDE_NOTHING = (
    *(f"utils.{room}" for room in ("arguments", "code_hash", "config", "errors", "files", "hashes", "jobs")),
    *(f"utils.{room}" for room in ("machine", "models.memory", "records", "report")),
    *(f"utils.lora.{file}" for file in ("card", "calibration", "metadata", "tensor_files")),
    *(f"utils.training.{file}" for file in ("claims", "log", "previews")),
    *(f"utils.training.checkpoints.{name}" for name in ("Checkpoint", "interruptible", "kept_rng")),
    *("utils.training.distributed.interruptible_together", "utils.training.distributed.on_main"),
    *(f"utils.training.trainer.{name}" for name in ("_accelerator", "_begin", "_check_finite", "_recorded")),
    *(f"utils.training.trainer.{name}" for name in ("_remove_earlier", "_save")),
    "utils.training.methods.METHODS",  # the row alone that a run is of
    *("utils.study.cells.CellResult", "utils.study.cells._keep_pictures", "utils.study.plan"),
)

# What a training, images, edits of photographs and a cell's figures begin with.
_TRAINING = ("utils.training.trainer.train_run", "utils.training.sources.Source")
_IMAGES = (
    *("utils.generation.sweep.sweep_batches", "utils.generation.sweep.applied_loras"),
    *("utils.generation.texts.encode_under", "utils.generation.texts.with_files"),
    "utils.data.pixels.to_images",
)
_PHOTOGRAPHS = ("utils.generation.sweep.edit_photo", "utils.data.photos.load_photo")
_FIGURES = ("utils.study.worker.StudyWorker", "utils.study.cells.identity_seeds")


def training_code(method: str, file: str | None) -> CodeHash:
    """Of what decides a training's weights.

    Args:
        method: its python_name.
        file: where it was written; all of that file counts if the library has no row of it.
    """
    methods, row = "utils.training.methods", f"METHODS[{method}]"
    stops = (*_DECIDE_NOTHING, "utils.lora", "utils.generation")
    if _nodes(_module(methods), row) or file is None:
        return _reached((*_TRAINING, f"{methods}.{row}"), stops)
    own = _parsed("", Path(file).read_text(encoding="utf-8"))
    nodes = [node for several in own.definitions.values() for node in several]
    named = {reference for node in nodes for reference in _references(own, node)}
    roots = (*_TRAINING, *sorted(f"{module}.{name}" for module, name in named if module))
    return _reached(roots, stops) | {Path(file).name: _hash_of(nodes)}


def images_code(of_photographs: bool = False) -> CodeHash:
    """Of what decides the images of a LoRA."""
    return _reached(_IMAGES + (_PHOTOGRAPHS if of_photographs else ()), _DECIDE_NOTHING)


def figures_code() -> CodeHash:
    """Of what decides a study's figures of a trained LoRA, its images included."""
    return _reached((*_FIGURES, *_IMAGES), (*_DECIDE_NOTHING, "utils.training"))


def changed_files(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files whose part in a result is another one."""
    return sorted(file for file in {*then, *now} if then.get(file) != now.get(file))


@dataclass(frozen=True)
class _Module:
    """A file's definitions, and what its imports stand for: a module and a name in it, "" for all of it."""

    name: str
    definitions: Mapping[str, Sequence[ast.AST]]
    imports: Mapping[str, tuple[str, str]]


@cache
def _reached(roots: Sequence[str], stops: Sequence[str]) -> CodeHash:
    """Follow names from `roots` on, never past `stops`."""
    found: dict[tuple[str, str], None] = {}
    todo = [root.rsplit(".", 1) for root in roots]
    while todo:
        module_name, name = todo.pop()
        if (module_name, name) in found or _stopped(f"{module_name}.{name}", stops):
            continue
        module = _module(module_name)
        nodes = _nodes(module, name)
        if nodes is None:
            continue
        found[module_name, name] = None
        todo += [list(reference) for node in nodes for reference in _references(module, node)]
    return _hashes(found)


def _hashes(found: Mapping[tuple[str, str], None]) -> CodeHash:
    """One hash for the definitions of each file."""
    by_file: dict[str, list[ast.AST]] = {}
    for module_name, name in sorted(found):
        nodes = _nodes(_module(module_name), name) or ()
        by_file.setdefault(f"{module_name.replace('.', '/')}.py", []).extend(nodes)
    return {file: _hash_of(nodes) for file, nodes in by_file.items()}


def _hash_of(nodes: Sequence[ast.AST]) -> str:
    return sha256(repr([_text(node) for node in nodes]).encode()).hexdigest()[:12]


@cache
def _text(node: ast.AST) -> str:
    return repr(_plain(node))


def _stopped(name: str, stops: Sequence[str]) -> bool:
    return any(name == stop or name.startswith(f"{stop}.") for stop in stops)


def _nodes(module: _Module, name: str) -> Sequence[ast.AST] | None:
    """What defines a name, or a row of a table, TABLE[KEY]; None where the module has no such name."""
    table, bracket, key = name.partition("[")
    nodes = module.definitions.get(table)
    if not bracket or nodes is None:
        return nodes
    return [
        value
        for node in nodes
        for table_node in ast.walk(node)
        if isinstance(table_node, ast.Dict)
        for own_key, value in zip(table_node.keys, table_node.values, strict=True)
        if isinstance(own_key, ast.Constant) and own_key.value == key.removesuffix("]")
    ]


def _references(module: _Module, node: ast.AST) -> Iterator[tuple[str, str]]:
    """The (module, name) of every definition of the library that a definition names."""
    for name in _names(node):
        if by_name := _CLASS_BY_NAME.fullmatch(name):
            yield by_name[1], by_name[2]
        elif name in module.definitions:
            yield module.name, name
        elif name in module.imports:
            other, its_name = module.imports[name]
            yield from (
                [(other, its_name)] if its_name else [(other, own) for own in _module(other).definitions]
            )


@cache
def _names(node: ast.AST) -> frozenset[str]:
    """The names in a definition, and the texts that name a class."""
    names = [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
    texts = [str(each.value) for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return frozenset([*names, *filter(_CLASS_BY_NAME.fullmatch, texts)])


@cache
def _module(name: str) -> _Module:
    """A module of the library, read; empty if there is none."""
    path = _path(name)
    return _parsed(name, path.read_text(encoding="utf-8") if path else "")


@cache
def _parsed(name: str, source: str) -> _Module:
    definitions: dict[str, list[ast.AST]] = {}
    imports: dict[str, tuple[str, str]] = {}
    tree = ast.parse(source)
    for statement in tree.body:
        for defined in _defined(statement):
            definitions.setdefault(defined, []).append(statement)

    # Imports wherever they stand: heavy ones are inside functions.
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == _LIBRARY:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                own = (whole, "") if _path(whole) else (str(node.module), alias.name)
                imports[alias.asname or alias.name] = own
    return _Module(name, definitions, imports)


def _path(name: str) -> Path | None:
    path = _FOLDER.joinpath(*name.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement of a module defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    names = [name for target in targets if target for name in ast.walk(target)]
    return [name.id for name in names if isinstance(name, ast.Name)]


def _plain(node: object) -> object:
    """Syntax as plain values, the same in every version of Python, without what changes nothing."""
    if isinstance(node, list):
        return [_plain(each) for each in node if not _says_only(each)]
    if not isinstance(node, ast.AST):
        return node
    left_out = {"ctx", "kind", "type_comment", "returns"}  # expression contexts and hints
    left_out |= {"annotation"} if isinstance(node, ast.arg) else set()
    left_out |= {"exc", "cause"} if isinstance(node, ast.Raise) else set()
    fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if name not in left_out]
    return type(node).__name__, [(name, value) for name, value in fields if value not in (None, [])]


def _says_only(node: object) -> bool:
    """Whether a statement is a docstring or another bare text."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
