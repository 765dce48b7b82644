"""Rules as expressions, `chars_per_mp > 2000 and sharpness > -2`: parsed with `ast`, checked name by name, never run.

Truth has four values. A comparison with a score that a picture does not have (the JPEG quality of a PNG) is *unknown*,
and what is unknown drops nothing. A comparison with a score that is only known to lie in an `Interval` is *undecided*
unless the whole interval lies on one side: so a detector's estimate can decide before anything is read.
"""

import ast
import difflib
import itertools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

MAX_CHARACTERS = 1000
"""Longer expressions are refused: nesting stays far below Python's own limits."""

Kind = Literal["number", "text"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A number known to lie between two others, both included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OneOf:
    """A text known to be one of several."""

    texts: frozenset[str]


class _Undecided:
    def __repr__(self) -> str:
        return "UNDECIDED"


UNDECIDED: Final = _Undecided()
"""The truth of a comparison with a score that is not known well enough yet."""

Value = float | str | Interval | OneOf | None
Truth = bool | None | _Undecided
Lookup = Callable[[str], Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A score that expressions may use."""

    kind: Kind
    stage: int
    """Cost: a score of a lower stage is cheaper; 0 is free."""
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A condition that pictures are kept by; `name` is the reason of those that fail it."""

    name: str
    text: str
    tree: ast.expr
    names: frozenset[str]
    stages: Mapping[str, int]

    @property
    def stage(self) -> int:
        """The most expensive score it may ask for."""
        return max((self.stages[name] for name in self.names), default=0)

    def holds(self, lookup: Lookup) -> Truth:
        """Whether the rule holds; `lookup` is asked only for the scores that matter, cheap ones first."""
        return _truth(self.tree, lookup, self.stages)


_COMPARE: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {"min": min, "max": max, "abs": abs}


def parse_rule(name: str, text: str, known: Mapping[str, Name]) -> Rule:
    """The rule called `name`. Raises ValueError that says what is wrong and which names there are."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"rule {name}: an expression of {len(text)} characters; the limit is {MAX_CHARACTERS}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
        what = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise ValueError(f"rule {name}: {text!r} is no expression ({what})") from None
    names: set[str] = set()
    try:
        if _check(tree, known, names) != "truth":
            raise ValueError("it is no comparison: write one, such as sharpness > -2.4")
    except RecursionError:
        raise ValueError(f"rule {name}: {text[:60]!r}... is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"rule {name}: {text!r}: {error}") from None
    stages = {used: known[used].stage for used in names}
    return Rule(name=name, text=" ".join(text.split()), tree=tree, names=frozenset(names), stages=stages)


def conjuncts(text: str) -> list[str]:
    """The parts of `text` that its outermost `and` joins; each can fail by itself. Raises ValueError for no Python."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        raise ValueError(f"{text[:60]!r} is no expression") from None
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    return [ast.unparse(part) for part in parts]


_Type = Literal["truth", "number", "text", "texts", "numbers", "none"]


def _check(node: ast.expr, known: Mapping[str, Name], names: set[str]) -> _Type:
    """The type of `node`, its names collected. Raises ValueError for anything that rules may not say."""
    match node:
        case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            for inner in node.values if isinstance(node, ast.BoolOp) else [node.operand]:
                if _check(inner, known, names) != "truth":
                    raise ValueError(f"{ast.unparse(inner)} stands where a comparison belongs")
            return "truth"
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [left, *others]
            types = [_check(side, known, names) for side in sides]
            for op, first, second in zip(ops, types, types[1:], strict=False):
                _check_comparison(node, op, first, second)
            return "truth"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            _numbers([left, right], known, names)
            return "number"
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=part):
            _numbers([part], known, names)
            return "number"
        case ast.Call(func=ast.Name(id=function), args=parts, keywords=[]) if function in _FUNCTIONS:
            if not parts or (function == "abs") != (len(parts) == 1):
                raise ValueError(f"{ast.unparse(node)}: abs takes one number, min and max take two or more")
            _numbers(parts, known, names)
            return "number"
        case ast.Name(id=name):
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                hint = f", did you mean {nearest[0]!r}" if nearest else ""
                raise ValueError(f"no score is called {name!r}{hint}; there are {', '.join(sorted(known))}")
            names.add(name)
            return known[name].kind
        case ast.Constant(value=None):
            return "none"
        case ast.Constant(value=str()):
            return "text"
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            if abs(number) > 1e300:
                raise ValueError("a number too large")
            return "number"
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            types = [_check(part, known, names) for part in parts]
            if not all(isinstance(part, ast.Constant) for part in parts) or set(types) not in ({"text"}, {"number"}):
                raise ValueError(f"{ast.unparse(node)}: a list holds plain texts or plain numbers")
            return "texts" if types[0] == "text" else "numbers"
    raise ValueError(
        f"{ast.unparse(node)} may not stand in a rule; use and, or, not, comparisons, in, is None, + - * /, "
        "min, max, abs"
    )


def _numbers(parts: list[ast.expr], known: Mapping[str, Name], names: set[str]) -> None:
    for part in parts:
        if _check(part, known, names) != "number":
            raise ValueError(f"{ast.unparse(part)} is no number")


def _check_comparison(node: ast.Compare, op: ast.cmpop, first: _Type, second: _Type) -> None:
    good = {
        ast.In: (("text", "texts"), ("number", "numbers")),
        ast.NotIn: (("text", "texts"), ("number", "numbers")),
        ast.Is: (("text", "none"), ("number", "none")),
        ast.IsNot: (("text", "none"), ("number", "none")),
        ast.Eq: (("text", "text"), ("number", "number")),
        ast.NotEq: (("text", "text"), ("number", "number")),
    }.get(type(op), (("number", "number"),))
    if (first, second) not in good:
        raise ValueError(f"{ast.unparse(node)} compares {first} with {second}")


def _truth(node: ast.expr, lookup: Lookup, stages: Mapping[str, int]) -> Truth:
    match node:
        case ast.BoolOp(op=op, values=parts):
            # Kleene's logic, cheapest operand first: one False settles `and`, one True settles `or`.
            settled = isinstance(op, ast.Or)
            seen: list[Truth] = []
            for part in sorted(parts, key=lambda part: _stage(part, stages)):
                truth = _truth(part, lookup, stages)
                if truth is settled:
                    return settled
                seen.append(truth)
            if any(isinstance(truth, _Undecided) for truth in seen):
                return UNDECIDED
            return None if None in seen else not settled
        case ast.UnaryOp(op=ast.Not(), operand=part):
            truth = _truth(part, lookup, stages)
            return not truth if isinstance(truth, bool) else truth
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_value(side, lookup) for side in (left, *others)]
            truths = [_compare(op, a, b) for op, a, b in zip(ops, values, values[1:], strict=False)]
            if False in truths:
                return False
            if any(isinstance(truth, _Undecided) for truth in truths):
                return UNDECIDED
            return None if None in truths else True
    raise AssertionError(f"_check lets no {type(node).__name__} through")


def _stage(node: ast.expr, stages: Mapping[str, int]) -> int:
    return max(
        (stages[inner.id] for inner in ast.walk(node) if isinstance(inner, ast.Name) and inner.id in stages), default=0
    )


_Operand = Value | frozenset[float | str]


def _value(node: ast.expr, lookup: Lookup) -> _Operand:
    match node:
        case ast.Name(id=name):
            return lookup(name)
        case ast.Constant(value=value):
            return value if isinstance(value, str) or value is None else float(value)  # type: ignore[arg-type]
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return frozenset(part.value for part in parts if isinstance(part, ast.Constant))  # type: ignore[misc]
        case ast.UnaryOp(op=op, operand=part):
            sign = -1.0 if isinstance(op, ast.USub) else 1.0
            return _apply(lambda number: sign * number, [part], lookup)
        case ast.BinOp(left=left, op=op, right=right):
            return _apply(_ARITHMETIC[type(op)], [left, right], lookup)
        case ast.Call(func=ast.Name(id=function), args=parts):
            return _apply(_FUNCTIONS[function], parts, lookup)
    raise AssertionError(f"_check lets no {type(node).__name__} through")


def _apply(function: Callable[..., float], parts: list[ast.expr], lookup: Lookup) -> Value:
    numbers = [_value(part, lookup) for part in parts]
    if any(number is None for number in numbers):
        return None
    if any(isinstance(number, Interval) for number in numbers):
        return Interval(float("-inf"), float("inf"))
    try:
        return float(function(*numbers))
    except (ZeroDivisionError, OverflowError):
        return None


def _compare(op: ast.cmpop, first: _Operand, second: _Operand) -> Truth:
    if isinstance(op, ast.Is | ast.IsNot):
        if isinstance(first, Interval | OneOf):
            return UNDECIDED
        return (first is None) == isinstance(op, ast.Is)
    if first is None or second is None:
        return None
    if isinstance(first, Interval) or isinstance(second, Interval):
        return _compare_intervals(op, first, second)
    firsts = first.texts if isinstance(first, OneOf) else frozenset([first])
    if isinstance(op, ast.In | ast.NotIn):
        found = {item in second for item in firsts}  # type: ignore[operator]
        wanted = isinstance(op, ast.In)
        return UNDECIDED if len(found) == 2 else found == {wanted}
    seconds = second.texts if isinstance(second, OneOf) else frozenset([second])
    truths = {_COMPARE[type(op)](a, b) for a in firsts for b in seconds}  # type: ignore[arg-type]
    return UNDECIDED if len(truths) == 2 else truths == {True}


def _compare_intervals(op: ast.cmpop, first: _Operand, second: _Operand) -> Truth:
    if isinstance(op, ast.In | ast.NotIn | ast.Eq | ast.NotEq):
        return UNDECIDED
    a, b = (side if isinstance(side, Interval) else Interval(side, side) for side in (first, second))  # type: ignore[arg-type]
    compare = _COMPARE[type(op)]
    corners = {compare(x, y) for x in (a.low, a.high) for y in (b.low, b.high)}
    # An order comparison of two intervals is monotone in every end, so the corners decide.
    return UNDECIDED if len(corners) == 2 else corners == {True}


def thresholds(rule: Rule) -> list[tuple[str, float]]:
    """(score, number) of every plain comparison in a rule, in its order: where pictures at its edge are to be found."""
    found = []
    for node in ast.walk(rule.tree):
        if not isinstance(node, ast.Compare):
            continue
        for first, second in itertools.pairwise([node.left, *node.comparators]):
            for name, number in ((first, second), (second, first)):
                if isinstance(name, ast.Name) and (value := _number(number)) is not None:
                    found.append((name.id, value))
    return found


def _number(node: ast.expr) -> float | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    return None
