"""CloudEvents SQL 1.0, as a filter: an expression over an event's attributes that is true or not.

As a filter an expression that errs is not true, and so is one whose value is no boolean; that makes every error the
end of its evaluation.
Source: https://github.com/cloudevents/spec/blob/main/cesql/spec.md
"""

from .parsing import Predicate, compile_filter
from .tokens import SqlProblem

__all__ = ["Predicate", "SqlProblem", "compile_filter", "sql_problem"]


def sql_problem(text: str) -> str | None:
    """What is wrong with an expression, and at which character; None where nothing is."""
    try:
        compile_filter(text)
    except SqlProblem as problem:
        return str(problem)
    return None
