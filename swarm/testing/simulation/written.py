"""Plans as text: Python, one event a line, to be kept in a test, mailed, changed by hand and done again.

Decides only the form. Reading builds nothing but plans: what is called must be one of their parts.
"""

from __future__ import annotations

import ast
import math
from typing import Any

import attrs

from swarm.testing.liars import Lies
from swarm.testing.simulation.plan import Delete, Fault, Get, Plan, Put
from swarm.testing.simulation.scale import Scale

_PARTS: dict[str, Any] = {
    **{each.__name__: each for each in (Plan, Put, Get, Delete, Fault, Scale, Lies)},
    "frozenset": frozenset,
}


def write(plan: Plan) -> str:
    """A plan as an expression; events in the order given, a line each."""
    lines = []
    for name in attrs.fields_dict(Plan):
        value = getattr(plan, name)
        if value and isinstance(value, tuple) and attrs.has(type(value[0])):
            rows = "".join(f"        {each!r},\n" for each in value)
            lines.append(f"    {name}=(\n{rows}    ),\n")
        else:
            lines.append(f"    {name}={value!r},\n")
    return f"Plan(\n{''.join(lines)})\n"


def read(text: str) -> Plan:
    """
    What :func:`write` made.

    :raises ValueError: it is anything else.
    """
    try:
        plan = _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, RecursionError) as e:
        raise ValueError(f"not a plan: {e}") from e
    if not isinstance(plan, Plan):
        raise ValueError("not a plan")
    return plan


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _PARTS:
        named = {each.arg: _value(each.value) for each in node.keywords if each.arg is not None}
        return _PARTS[node.func.id](*map(_value, node.args), **named)
    if isinstance(node, ast.Tuple):
        return tuple(map(_value, node.elts))
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    return ast.literal_eval(node)
