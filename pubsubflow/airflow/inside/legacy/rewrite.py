"""Rewrites the old imports of one file while it is compiled; positions stay as they are.

A finder on `sys.meta_path`, or modules in `sys.modules`, would answer for old names to providers as
well: they find out by such imports which Airflow they run on, and would take their path for 2.x.
"""

import ast
from typing import NamedTuple

from pubsubflow.airflow.inside.legacy import table
from pubsubflow.airflow.inside.legacy.old_modules import written
from pubsubflow.airflow.inside.legacy.table import Row
from pubsubflow.airflow.inside.loading.notes import NoteBook

_OLD_MODULES = "pubsubflow.airflow.inside.legacy.old_modules"
_RULES = {"DUMMY": "ALWAYS", "NONE_FAILED_OR_SKIPPED": "NONE_FAILED_MIN_ONE_SUCCESS"}


class _Found(NamedTuple):
    row: Row
    use: str


def rewrite(tree: ast.Module, file: str, notes: NoteBook) -> ast.Module:
    """Return a module with its old imports replaced.

    Args:
        tree: The module as it is written; it is changed.
        file: Its path, for notes.
        notes: Gets a note for each use.
    """
    changed: ast.Module = ast.fix_missing_locations(_Rewriter(file, notes).visit(tree))
    return changed


class _Rewriter(ast.NodeTransformer):
    def __init__(self, file: str, notes: NoteBook) -> None:
        self._file = file
        self._notes = notes
        # Local name → the module of Airflow's it stands for.
        self._modules: dict[str, str] = {}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | list[ast.stmt]:
        module = node.module or ""
        if node.level or module.partition(".")[0] != "airflow":
            return node
        kept: list[ast.alias] = []
        made: list[ast.stmt] = []
        for alias in node.names:
            statements = self._import_name(node, module, alias)
            if statements is None:
                kept.append(alias)
                self._remember(alias.asname or alias.name, f"{module}.{alias.name}")
            made += statements or []
        if not made:
            return node
        if kept:
            # First, as it was: a name that is lacking fails at the same place as before.
            made.insert(0, ast.copy_location(ast.ImportFrom(module, kept, 0), node))
        return made

    def _import_name(
        self, node: ast.ImportFrom, module: str, alias: ast.alias
    ) -> list[ast.stmt] | None:
        """Return what stands for one name of a `from` import; None if it may stay."""
        if alias.name == "*":
            return self._import_all(node, module) if table.is_old_module(module) else None
        local = alias.asname or alias.name
        whole = f"{module}.{alias.name}"
        if table.is_old_module(whole) and not table.has_name(module, alias.name):
            self._remember(local, whole)
            return [_from(node, _OLD_MODULES, written(whole), local)]
        row = table.find_row(module, alias.name)
        if row is None:
            return None
        self._note(node.lineno, f"from {module} import {alias.name}", row)
        if row.remedy:
            return [ast.Expr(_call(node, "refuse", module, alias.name))]
        return [_from(node, row.new_module, row.new_name, local)]

    def _import_all(self, node: ast.ImportFrom, module: str) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        star = table.star_module(module)
        if star is not None:
            made.append(_from(node, star, "*", "*"))
            use = f"from {module} import *"
            self._notes.add(self._file, node.lineno, use, f"from {star} import the names in use")
        for name in table.renamed_names(module):
            row = table.find_row(module, name)
            if row is not None and row.new_module:
                made.append(_from(node, row.new_module, row.new_name, name))
                self._note(node.lineno, f"from {module} import *", row)
        return made

    def visit_Import(self, node: ast.Import) -> ast.AST | list[ast.stmt]:
        made: list[ast.stmt] = []
        for alias in node.names:
            top, _, rest = alias.name.partition(".")
            if top != "airflow":
                made.append(ast.copy_location(ast.Import([alias]), node))
                continue
            self._remember(alias.asname or top, alias.name if alias.asname else top)
            if not table.is_old_module(alias.name):
                made.append(ast.copy_location(ast.Import([alias]), node))
            elif alias.asname:
                made.append(_from(node, _OLD_MODULES, written(alias.name), alias.asname))
            elif rest:
                # Its names are reached from `airflow` by attributes, which are replaced one by one.
                made.append(ast.copy_location(ast.Import([ast.alias(top)]), node))
        return made

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        found = self._old_attribute(node)
        if found is not None and isinstance(node.ctx, ast.Load):
            self._note(node.lineno, found.use, found.row)
            name = "refuse" if found.row.remedy else "find_object"
            return _call(node, name, found.row.module, found.row.name)
        if node.attr in _RULES and isinstance(node.value, ast.Name):
            if node.value.id == "TriggerRule":
                new = _RULES[node.attr]
                use = f"TriggerRule.{node.attr}"
                self._notes.add(self._file, node.lineno, use, f"TriggerRule.{new}")
                return ast.copy_location(ast.Attribute(node.value, new, node.ctx), node)
            return node
        return self.generic_visit(node)

    def _old_attribute(self, node: ast.Attribute) -> _Found | None:
        """Return the row of `module.name`, where the module was imported under some name."""
        names = [node.attr]
        value = node.value
        while isinstance(value, ast.Attribute):
            names.append(value.attr)
            value = value.value
        if not isinstance(value, ast.Name) or value.id not in self._modules:
            return None
        *path, name = [self._modules[value.id], *reversed(names)]
        row = table.find_row(".".join(path), name)
        return row and _Found(row, ".".join([value.id, *reversed(names)]))

    def _remember(self, local: str, module: str) -> None:
        self._modules[local] = module

    def _note(self, line: int, use: str, row: Row) -> None:
        self._notes.add(self._file, line, use, row.today, "fails" if row.remedy else "legacy")


def _from(node: ast.stmt, module: str, name: str, local: str) -> ast.stmt:
    alias = ast.alias(name, None if local == name else local)
    return ast.copy_location(ast.ImportFrom(module, [alias], 0), node)


def _call(node: ast.AST, function: str, module: str, name: str) -> ast.expr:
    text = f"__import__({_OLD_MODULES!r}, fromlist=['_']).{function}({module!r}, {name!r})"
    made = ast.parse(text, mode="eval").body
    for each in ast.walk(made):
        ast.copy_location(each, node)
    return made
