"""Reads back the PMML that `deployr_cli.edge.pmml_file` writes, and scores rows by it, to check it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from deployr_cli.edge.pmml_file import NAMESPACE

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "lessThan": lambda x, cut: x < cut,
    "lessOrEqual": lambda x, cut: x <= cut,
    "greaterThan": lambda x, cut: x > cut,
    "greaterOrEqual": lambda x, cut: x >= cut,
    "equal": lambda x, cut: x == cut,
    "notEqual": lambda x, cut: x != cut,
}
_FUNCTIONS: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


def answers(content: bytes, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score rows, shape (n_rows, n_features), by a file; shape (n_rows, 1)."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
    root = etree.fromstring(content, parser)
    (model,) = _all(root, "MiningModel") or _all(root, "RegressionModel")
    adds = _sum_of_trees(model) if etree.QName(model).localname == "MiningModel" else _line(model)
    return np.array([[_output(model, adds(row))] for row in rows])


def _sum_of_trees(model: Any) -> Callable[[NDArray[np.float64]], float]:
    (segments,) = _all(model, "Segmentation")
    trees = [_node(_one(tree, "Node")) for tree in _all(segments, "Segment/TreeModel")]
    count = len(trees) if segments.get("multipleModelMethod") == "average" else 1
    return lambda row: sum(_walk(tree, row) for tree in trees) / count


def _line(model: Any) -> Callable[[NDArray[np.float64]], float]:
    table = _one(model, "RegressionTable")
    weights = [(int(each.get("name")[1:]), float(each.get("coefficient"))) for each in table]
    intercept = float(table.get("intercept"))
    return lambda row: math.fsum([intercept, *(weight * row[place] for place, weight in weights)])


def _node(element: Any) -> dict[str, Any]:
    """Read a tree; without recursion, because it may be deep."""
    top: dict[str, Any] = {}
    waiting = [(element, top)]
    while waiting:
        here, node = waiting.pop()
        node |= {"score": here.get("score"), "holds": _holds(here), "children": []}
        for child in _all(here, "Node"):
            node["children"].append({})
            waiting.append((child, node["children"][-1]))
    return top


def _walk(node: dict[str, Any], row: NDArray[np.float64]) -> float:
    while node["children"]:
        node = next(each for each in node["children"] if each["holds"](row))
    return float(node["score"])


def _holds(node: Any) -> Callable[[NDArray[np.float64]], bool]:
    """Give what decides whether a row comes to a node."""
    compound = _all(node, "CompoundPredicate")
    tests = [
        (int(each.get("field")[1:]), _OPERATORS[each.get("operator")], float(each.get("value")))
        for each in _all(compound[0] if compound else node, "SimplePredicate")
    ]
    holds = any if compound and compound[0].get("booleanOperator") == "or" else all
    return lambda row: holds(compare(row[place], value) for place, compare, value in tests)


def _output(model: Any, total: float) -> float:
    fields: dict[str, float] = {}
    number = math.nan
    for field in _all(model, "Output/OutputField"):
        number = total if field.get("feature") == "predictedValue" else _value(field[0], fields)
        fields[field.get("name")] = number
    return number


def _value(expression: Any, fields: Mapping[str, float]) -> float:
    match etree.QName(expression).localname:
        case "Constant":
            return float(expression.text)
        case "FieldRef":
            return fields[expression.get("field")]
        case "NormContinuous":
            origins, norms = ([float(each.get(end)) for each in expression] for end in ("orig", "norm"))
            return float(np.interp(fields[expression.get("field")], origins, norms))
        case _:
            given = [_value(each, fields) for each in expression]
            if expression.get("function") == "exp":
                return math.exp(min(given[0], 709.0))
            return _FUNCTIONS[expression.get("function")](given[0], given[1])


def _all(element: Any, path: str) -> list[Any]:
    return list(element.findall("/".join(f"{{{NAMESPACE}}}{part}" for part in path.split("/"))))


def _one(element: Any, tag: str) -> Any:
    (found,) = _all(element, tag)
    return found
