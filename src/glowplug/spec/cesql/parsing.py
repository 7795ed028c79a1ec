"""An expression → a function of an event's attributes. Pure.

What can be seen without an event is refused here: words, brackets, functions that there are not, and how many
arguments they take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .tokens import END, KEYWORD, NAME, NUMBER, SIGN, TEXT, SqlProblem, Token, tokens
from .values import (
    ARITHMETIC,
    COMPARISON,
    FUNCTIONS,
    VARIADIC,
    Undefined,
    Value,
    bounded,
    cast_like,
    is_equal,
    like,
    to_bool,
    to_int,
    to_text,
)

Attributes = Mapping[str, Value]
Expression = Callable[[Attributes], Value]
Predicate = Callable[[Attributes], bool]
_DEEPEST = 100
# In a row they are as deep as brackets when the expression is evaluated.
_MOST_OPERATORS = 200
_LONGEST = 4096
# What binds tighter has the higher number; of logic, all alike.
_LOGIC, _COMPARE, _ADD, _MULTIPLY, _SUFFIX, _PREFIX = range(1, 7)
_BINARY = {
    **dict.fromkeys(("AND", "OR", "XOR"), _LOGIC),
    **dict.fromkeys(("=", "!=", "<>", "<", "<=", ">", ">="), _COMPARE),
    **dict.fromkeys(("+", "-"), _ADD),
    **dict.fromkeys(("*", "/", "%"), _MULTIPLY),
    **dict.fromkeys(("NOT", "LIKE", "IN"), _SUFFIX),
}


def compile_filter(text: str) -> Predicate:
    """Whether an event passes; attributes that are not there are absent from the mapping. Raises SqlProblem."""
    if len(text) > _LONGEST:
        raise SqlProblem(f"longer than {_LONGEST} characters", _LONGEST)
    expression = _Parser(list(tokens(text))).whole()

    def passes(attributes: Attributes) -> bool:
        try:
            return expression(attributes) is True
        except Undefined:
            return False

    return passes


class _Parser:
    """Precedence climbing."""

    def __init__(self, found: list[Token]) -> None:
        self._tokens, self._index, self._depth, self._operators = found, 0, 0, 0

    def whole(self) -> Expression:
        expression = self._expression(_LOGIC)
        if self._next.kind != END:
            raise self._unexpected("an operator or the end")
        return expression

    @property
    def _next(self) -> Token:
        return self._tokens[self._index]

    def _take(self) -> Token:
        self._index += 1
        return self._tokens[self._index - 1]

    def _is(self, *values: str) -> bool:
        return self._next.kind in (SIGN, KEYWORD) and self._next.value in values

    def _expect(self, value: str) -> None:
        if not self._is(value):
            raise self._unexpected(repr(value))
        self._take()

    def _unexpected(self, expected: str) -> SqlProblem:
        found = "the end" if self._next.kind == END else repr(self._next.value)
        return SqlProblem(f"found {found}, expected {expected}", self._next.position)

    def _expression(self, binding: int) -> Expression:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise SqlProblem(f"nested more than {_DEEPEST} deep", self._next.position)
        left = self._operand()
        while self._next.kind in (SIGN, KEYWORD) and _BINARY.get(self._next.value, 0) >= binding:
            left = self._operation(left)
        self._depth -= 1
        return left

    def _operation(self, left: Expression) -> Expression:
        self._operators += 1
        if self._operators > _MOST_OPERATORS:
            raise SqlProblem(f"more than {_MOST_OPERATORS} operators", self._next.position)
        operator = self._take().value
        if operator in ("NOT", "LIKE", "IN"):
            return self._suffix(left, operator)
        own = _BINARY[operator]
        # Logic is read from the right.
        right = self._expression(own if own == _LOGIC else own + 1)
        return _logic(operator, left, right) if own == _LOGIC else _binary(operator, left, right)

    def _suffix(self, left: Expression, operator: str) -> Expression:
        is_negated = operator == "NOT"
        if is_negated:
            if not self._is("LIKE", "IN"):
                raise self._unexpected("LIKE or IN after NOT")
            operator = self._take().value
        found = self._like(left) if operator == "LIKE" else self._in(left)
        return (lambda event: not found(event)) if is_negated else found

    def _like(self, left: Expression) -> Predicate:
        if self._next.kind != TEXT:
            raise self._unexpected("a pattern in quotes")
        matches = like(self._take().value)
        return lambda event: matches(to_text(left(event)))

    def _in(self, left: Expression) -> Predicate:
        self._expect("(")
        elements = self._list()

        def holds(event: Attributes) -> bool:
            value = left(event)
            found = [cast_like(element(event), value) == value for element in elements]
            return any(found)

        return holds

    def _operand(self) -> Expression:
        if self._is("NOT"):
            self._take()
            inner = self._expression(_PREFIX)
            return lambda event: not to_bool(inner(event))
        if self._is("-", "+"):
            return self._signed()
        if self._is("EXISTS"):
            self._take()
            name = self._attribute()
            return lambda event: name in event
        if self._is("TRUE", "FALSE"):
            is_true = self._take().value == "TRUE"
            return lambda event: is_true
        if self._is("("):
            self._take()
            inner = self._expression(_LOGIC)
            self._expect(")")
            return inner
        return self._atom()

    def _signed(self) -> Expression:
        sign = self._take().value
        if self._next.kind == NUMBER:
            return self._number(sign)
        if sign == "+":
            raise self._unexpected("a number after '+'")
        inner = self._expression(_PREFIX)
        return lambda event: bounded(-to_int(inner(event)))

    def _atom(self) -> Expression:
        if self._next.kind == TEXT:
            text = self._take().value
            return lambda event: text
        following = self._tokens[self._index + 1] if self._next.kind != END else self._next
        if self._next.kind == NAME and following.kind == SIGN and following.value == "(":
            return self._function()
        if self._next.kind == NUMBER:
            return self._number("")
        name = self._attribute()

        def value(event: Attributes) -> Value:
            if name not in event:
                raise Undefined(f"the event has no {name}")
            return event[name]

        return value

    def _number(self, sign: str) -> Expression:
        token = self._take()
        try:
            value = to_int(sign + token.value)
        except Undefined as error:
            raise SqlProblem(str(error), token.position) from error
        return lambda event: value

    def _attribute(self) -> str:
        if self._next.kind not in (NAME, NUMBER):
            raise self._unexpected("an attribute, a value or an expression in brackets")
        token = self._take()
        name = token.value.lower()
        if not name.isalnum():
            why = f"{token.value!r} is no attribute: those are letters and digits"
            raise SqlProblem(why, token.position)
        return name

    def _function(self) -> Expression:
        token = self._take()
        self._expect("(")
        arguments = [] if self._is(")") else self._list()
        if not arguments:
            self._expect(")")
        return _call(token, arguments)

    def _list(self) -> list[Expression]:
        """Expressions up to the closing bracket, which is taken too; one at least."""
        found = [self._expression(_LOGIC)]
        while self._is(","):
            self._take()
            found.append(self._expression(_LOGIC))
        self._expect(")")
        return found


def _logic(operator: str, left: Expression, right: Expression) -> Expression:
    if operator == "AND":
        return lambda event: to_bool(left(event)) and to_bool(right(event))
    if operator == "OR":
        return lambda event: to_bool(left(event)) or to_bool(right(event))
    return lambda event: to_bool(left(event)) != to_bool(right(event))


def _binary(operator: str, left: Expression, right: Expression) -> Expression:
    if operator == "=":
        return lambda event: is_equal(left(event), right(event))
    if operator in ("!=", "<>"):
        return lambda event: not is_equal(left(event), right(event))
    compute: Callable[[int, int], Value] = (
        COMPARISON[operator] if operator in COMPARISON else ARITHMETIC[operator]
    )
    return lambda event: compute(to_int(left(event)), to_int(right(event)))


def _call(token: Token, arguments: list[Expression]) -> Expression:
    name = token.value.upper()
    if name in VARIADIC:
        least, join = VARIADIC[name]
        if len(arguments) < least:
            raise SqlProblem(f"{name} takes at least {least} arguments", token.position)
        return lambda event: join(*(to_text(argument(event)) for argument in arguments))
    if name not in FUNCTIONS:
        known = ", ".join(sorted({*FUNCTIONS, *VARIADIC}))
        raise SqlProblem(f"there is no function {token.value}; there are {known}", token.position)
    if len(arguments) not in FUNCTIONS[name]:
        takes = " or ".join(map(str, FUNCTIONS[name]))
        raise SqlProblem(f"{name} takes {takes} arguments, found {len(arguments)}", token.position)
    casts, compute = FUNCTIONS[name][len(arguments)]
    return lambda event: compute(
        *(cast(argument(event)) for cast, argument in zip(casts, arguments, strict=True))
    )
