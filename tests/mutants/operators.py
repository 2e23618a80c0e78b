"""The mutants of a module: its text with one small fault each."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LOGGED = {"debug", "info"}  # what only a person reads
_TYPES = ("annotation", "returns")


@dataclass(frozen=True)
class Mutant:
    """A module with a fault."""

    module: str  # its path, relative to the project
    lines: range  # that differ
    operator: str
    before: str  # these lines, on one
    after: str
    text: str  # of the whole module
    on_import: bool  # whether the place runs when the module is imported, and not in a function


def mutants_of(module: str, text: str) -> list[Mutant]:
    """All mutants of a module that are Python, in the order of their places."""
    found = {}
    source = _Source(module, text)
    for node, inside in _walk(ast.parse(text), False):
        for operator, place, replacement in _faults(node):
            mutant = source.with_fault(operator, place, replacement, not inside)
            if mutant is not None:
                found.setdefault(mutant.text, mutant)
    return list(found.values())


def _walk(node: ast.AST, inside: bool) -> Iterator[tuple[ast.AST, bool]]:
    """The nodes that may have a fault, and whether each is in a function."""
    for name, value in ast.iter_fields(node):
        is_body = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and name == "body"
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in _TYPES and not _is_left_out(child):
                yield child, inside or is_body
                yield from _walk(child, inside or is_body)


def _is_left_out(node: ast.AST) -> bool:
    """Whether a node has no faults: an f-string, whose places Python does not know before 3.12; what is there for type
    checkers, such as whether a dataclass is frozen."""
    is_dataclass = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dataclass"
    is_typing = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return is_dataclass or is_typing or isinstance(node, ast.JoinedStr)


def _faults(node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST | str]]:
    """The faults of one node: the operator, what is replaced, and by what."""
    if isinstance(node, ast.stmt):
        yield from _of_statement(node)
    if isinstance(node, ast.If | ast.IfExp):
        yield "condition forced", node.test, "True"
        yield "condition forced", node.test, "False"
    if isinstance(node, ast.While):
        yield "condition forced", node.test, "False"
    if isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield "condition forced", test, "True"
    if isinstance(node, ast.expr):
        yield from _of_expression(node)


def _of_statement(node: ast.stmt) -> Iterator[tuple[str, ast.AST, str]]:
    if isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield "returns None", node, "return None"
    if isinstance(node, ast.Break | ast.Continue | ast.Raise | ast.AugAssign | ast.Delete):
        yield "statement dropped", node, "pass"
    if isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple):
        yield "statement dropped", node, "pass"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        if not (isinstance(called, ast.Attribute) and called.attr in _LOGGED):
            yield "statement dropped", node, "pass"


def _of_expression(node: ast.expr) -> Iterator[tuple[str, ast.AST, ast.AST | str]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        swapped = [_COMPARISONS[type(node.ops[0])](), *node.ops[1:]]
        yield "comparison swapped", node, ast.Compare(node.left, swapped, node.comparators)
    if isinstance(node, ast.BoolOp):
        swapped_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or swapped", node, ast.BoolOp(swapped_op, node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not dropped", node, node.operand
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _is_text(node.left):
        yield "arithmetic swapped", node, ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    if isinstance(node, ast.Constant):
        yield from _of_constant(node)
    if isinstance(node, ast.Call):
        yield from _of_call(node)


def _of_constant(node: ast.Constant) -> Iterator[tuple[str, ast.AST, str]]:
    if isinstance(node.value, bool):
        yield "constant changed", node, str(not node.value)
    elif isinstance(node.value, int | float):
        yield "constant changed", node, repr(node.value + 1)
        yield "constant changed", node, repr(node.value - 1)


def _of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    if isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        yield "function swapped", node, ast.Call(ast.Name(_FUNCTIONS[node.func.id]), node.args, node.keywords)
    for place in range(len(node.keywords)):
        fewer = copy.copy(node)
        fewer.keywords = node.keywords[:place] + node.keywords[place + 1 :]
        yield "argument dropped", node, fewer


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


class _Source:
    """A module's text, in which places are replaced."""

    def __init__(self, module: str, text: str):
        self.module = module
        self.text = text.encode()
        self.meaning = ast.dump(ast.parse(text))
        self.starts = [0]  # of lines, in bytes, as Python counts columns
        for line in self.text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def with_fault(self, operator: str, place: ast.AST, by: ast.AST | str, on_import: bool) -> Mutant | None:
        """The mutant, or None if it is not Python, or the same."""
        start = self.starts[place.lineno - 1] + place.col_offset  # type: ignore[attr-defined]
        end = self.starts[place.end_lineno - 1] + place.end_col_offset  # type: ignore[attr-defined]
        replacement = by if isinstance(by, str) else f"({ast.unparse(ast.fix_missing_locations(by))})"
        text = (self.text[:start] + replacement.encode() + self.text[end:]).decode()
        try:
            if ast.dump(ast.parse(text)) == self.meaning:
                return None
        except SyntaxError:
            return None
        lines = range(place.lineno, place.end_lineno + 1)  # type: ignore[attr-defined]
        begin, finish = self.starts[lines[0] - 1], self.starts[lines[-1]]
        before = self.text[begin:finish].decode()
        after = text.encode()[begin : finish + len(text.encode()) - len(self.text)].decode()
        return Mutant(self.module, lines, operator, _on_one(before), _on_one(after), text, on_import)


def _on_one(lines: str) -> str:
    return " ".join(lines.split())
