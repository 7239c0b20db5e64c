"""Public names found in the sources: functions, classes and constants with what is said of them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "zsbir_fast"
# What torch calls, and users do not.
_PLUMBING = {"extra_repr", "get_extra_state", "set_extra_state"}


@dataclass(frozen=True)
class Constant:
    """A value of a module.

    Attributes:
        path: file that defines it, from the root of the repository.
        text: its name and type.
        comment: the comment above it.
    """

    path: str
    text: str
    comment: str


@dataclass(frozen=True)
class Function:
    """A function, a method or a property.

    Attributes:
        path: file that defines it, from the root of the repository.
        node: its definition.
        bound: whether its first argument is the object or the class.
    """

    path: str
    node: ast.FunctionDef
    bound: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.node.name

    @property
    def docstring(self) -> str:
        """Its docstring, or nothing."""
        return ast.get_docstring(self.node) or ""

    @property
    def result(self) -> str:
        """The type of what it returns."""
        return _source(self.node.returns) if self.node.returns else ""

    def parameters(self) -> list[str]:
        """Write the parameters as in the source."""
        given = self.node.args
        plain = [*given.posonlyargs, *given.args]
        gap: list[ast.expr | None] = [None] * (len(plain) - len(given.defaults))
        written = [_parameter(a, d) for a, d in zip(plain, [*gap, *given.defaults], strict=True)]
        if given.posonlyargs:
            written.insert(len(given.posonlyargs), "/")
        written = written[1:] if self.bound else written
        if given.vararg:
            written.append(f"*{_parameter(given.vararg, None)}")
        elif given.kwonlyargs:
            written.append("*")
        pairs = zip(given.kwonlyargs, given.kw_defaults, strict=True)
        written += [_parameter(argument, default) for argument, default in pairs]
        if given.kwarg:
            written.append(f"**{_parameter(given.kwarg, None)}")
        return written

    def annotations(self) -> list[ast.expr]:
        """Collect the types of its arguments and of its result."""
        found = [n.annotation for n in ast.walk(self.node.args) if isinstance(n, ast.arg)]
        return [annotation for annotation in (*found, self.node.returns) if annotation]


@dataclass(frozen=True)
class Class:
    """A class.

    Attributes:
        path: file that defines it, from the root of the repository.
        node: its definition.
    """

    path: str
    node: ast.ClassDef

    @property
    def docstring(self) -> str:
        """Its docstring, or nothing."""
        return ast.get_docstring(self.node) or ""

    @property
    def result(self) -> str:
        """Nothing: a class makes objects of itself."""
        return ""

    def parameters(self) -> list[str]:
        """Write the parameters of its constructor; the fields, if it has none of its own."""
        for function in self._functions():
            if function.name == "__init__":
                return function.parameters()
        return [
            f"{ast.unparse(field.target)}: {_source(field.annotation)}"
            + (f" = {_source(field.value)}" if field.value else "")
            for field in self._fields()
        ]

    def methods(self) -> list[Function]:
        """Collect its public methods in the order of the source."""
        return [f for f in self._public() if "property" not in _decorators(f.node)]

    def properties(self) -> list[Function]:
        """Collect its public properties in the order of the source."""
        return [f for f in self._public() if "property" in _decorators(f.node)]

    def annotations(self) -> list[ast.expr]:
        """Collect the types in its signatures."""
        made = [f for f in self._functions() if f.name == "__init__"]
        return [
            *(annotation for f in (*made, *self._public()) for annotation in f.annotations()),
            *(field.annotation for field in self._fields()),
        ]

    def _public(self) -> list[Function]:
        return [
            function
            for function in self._functions()
            if not function.name.startswith("_") and function.name not in _PLUMBING
        ]

    def _functions(self) -> list[Function]:
        return [
            Function(self.path, node, bound="staticmethod" not in _decorators(node))
            for node in self.node.body
            if isinstance(node, ast.FunctionDef) and "overload" not in _decorators(node)
        ]

    def _fields(self) -> list[ast.AnnAssign]:
        return [node for node in self.node.body if isinstance(node, ast.AnnAssign)]


Thing = Function | Class | Constant


class Sources:
    """The modules of the package, as syntax trees.

    Args:
        root: folder of the repository.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._trees: dict[str, ast.Module] = {}

    def public_names(self) -> dict[str, dict[str, str]]:
        """Read the table of public names: group -> name -> module.

        Returns:
            The table in its order.

        Raises:
            LookupError: ``__init__.py`` has no such table.
        """
        table = self._assigned(PACKAGE, "_PUBLIC")
        if table is None:
            raise LookupError(f"public_names: {PACKAGE}/__init__.py must have a table _PUBLIC")
        groups: dict[str, dict[str, str]] = ast.literal_eval(table)
        return groups

    def find(self, module: str, name: str) -> Thing:
        """Find a name where it is defined, also if the module only imports it.

        Args:
            module: the module that has the name, with dots.
            name: the name.

        Returns:
            Its definition; of overloaded functions the implementation.

        Raises:
            LookupError: the module neither defines nor imports it.
        """
        path = self._path(module)
        shown = path.relative_to(self._root).as_posix()
        for node in reversed(self._tree(module).body):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return Function(shown, node)
            if isinstance(node, ast.ClassDef) and node.name == name:
                return Class(shown, node)
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
                text = f"{name}: {_source(node.annotation)}"
                return Constant(shown, text, _comment_above(path, node.lineno))
        origin = self._imported_from(module, name)
        if origin is None:
            raise LookupError(f"find: {name} must be defined or imported in {module}, it is not")
        return self.find(origin, name)

    def aliases_of(self, thing: Thing) -> dict[str, str]:
        """Look up the names of types in signatures that stand for a choice of values or types.

        Args:
            thing: a definition.

        Returns:
            Name -> what it stands for, with the names in that.
        """
        if isinstance(thing, Constant):
            return {}
        module = thing.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        found: dict[str, str] = {}
        for annotation in thing.annotations():
            self._add_aliases(module, annotation, found)
        return found

    def _add_aliases(self, module: str, expression: ast.expr, found: dict[str, str]) -> None:
        for node in ast.walk(expression):
            if not isinstance(node, ast.Name) or node.id in found:
                continue
            origin: str | None = module
            while origin is not None and (value := self._assigned(origin, node.id)) is None:
                origin = self._imported_from(origin, node.id)
            if origin is not None and value is not None:
                found[node.id] = _source(value)
                self._add_aliases(origin, value, found)

    def _assigned(self, module: str, name: str) -> ast.expr | None:
        for node in self._tree(module).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                return node.value
        return None

    def _imported_from(self, module: str, name: str) -> str | None:
        for node in ast.walk(self._tree(module)):
            if not isinstance(node, ast.ImportFrom):
                continue
            names = {alias.asname or alias.name for alias in node.names}
            if (node.module or "").startswith(PACKAGE) and name in names:
                return node.module
        return None

    def _path(self, module: str) -> Path:
        base = self._root / module.replace(".", "/")
        return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")

    def _tree(self, module: str) -> ast.Module:
        if module not in self._trees:
            self._trees[module] = ast.parse(self._path(module).read_text(encoding="utf-8"))
        return self._trees[module]


def _source(expression: ast.expr) -> str:
    return ast.unparse(expression).replace("'", '"')


def _decorators(node: ast.FunctionDef) -> set[str]:
    return {ast.unparse(decorator) for decorator in node.decorator_list}


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {_source(argument.annotation)}" if argument.annotation else ""
    equals = " = " if annotation else "="
    return argument.arg + annotation + (equals + _source(default) if default else "")


def _comment_above(path: Path, line: int) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()[: line - 1]
    found: list[str] = []
    while lines and lines[-1].startswith("# "):
        found.insert(0, lines.pop().removeprefix("# "))
    return "\n".join(found)
