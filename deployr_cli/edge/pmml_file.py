"""A model of one number as PMML 4.4: its features by their places and names, its trees or line, its calibration.

Field ``x17`` is feature 17; its ``displayName`` is the declaration's name of it. A field that is not given is 0, as in
the bundle. The last output field bears the name of what is predicted. Every number is written so that it reads back
to the same bits.

Source: PMML 4.4.1, Data Mining Group, https://dmg.org/pmml/v4-4-1/GeneralStructure.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from lxml import etree

from deployr_cli.edge.plain import Line, NotForEdge, PlainModel, Tree, Trees
from deployr_core.scoring import IsotonicTable, SigmoidTable

NAMESPACE = "http://www.dmg.org/PMML-4_4"
SUM, RAW = "deployr_sum", "deployr_raw"
"""Output fields on the way: what the model adds up to, and what of that a calibration starts from."""
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd]")


def pmml(plain: PlainModel) -> bytes:
    """Give the model as PMML.

    Raises:
        NotForEdge: it gives several numbers.
    """
    if len(plain.outputs.names) > 1:
        raise NotForEdge("expected a model of one number; what gives several can be exported to ONNX")
    root = etree.Element("PMML", {"version": "4.4"}, nsmap={None: NAMESPACE})
    about = plain.about
    header = _add(root, "Header", description=about.get("deployr.label", ""))
    for key, value in sorted(about.items()):
        _add(header, "Extension", name=key, value=value)
    _add(header, "Application", name="deployr")
    fields = _add(root, "DataDictionary", numberOfFields=str(len(plain.names)))
    for place, name in enumerate(plain.names):
        _add(fields, "DataField", name=_field(place), displayName=name, optype="continuous", dataType="double")
    match plain.model:
        case Trees() as trees:
            _trees(root, plain, trees)
        case Line() as line:
            _line(root, plain, line)
    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True))


def _trees(root: etree._Element, plain: PlainModel, model: Trees) -> None:
    name = plain.about["deployr.model_id"]
    mining = _add(root, "MiningModel", functionName="regression", modelName=name)
    _schema(mining, _used(model.trees))
    _output(mining, plain, base=float(model.base[0]), steepness=model.steepness)
    method = "sum" if model.n_averaged is None else "average"
    segments = _add(mining, "Segmentation", multipleModelMethod=method)
    for number, tree in enumerate(model.trees):
        segment = _add(segments, "Segment", id=str(number + 1))
        _add(segment, "True")
        held = _add(segment, "TreeModel", functionName="regression", splitCharacteristic="binarySplit")
        _schema(held, _used([tree]))
        top = _add(held, "Node", id="0")
        _add(top, "True")
        _grow(top, tree, zero_is_missing=model.zero_is_missing)


def _grow(top: etree._Element, tree: Tree, *, zero_is_missing: bool) -> None:
    """Add what is under the root; without recursion, because boosted trees may be deep."""
    waiting = [(top, 0)]
    while waiting:
        above, each = waiting.pop()
        if tree.feature[each] < 0:
            above.set("score", _number(float(tree.leaf[each, 0])))
            continue
        left, right = int(tree.left[each]), int(tree.right[each])
        signs = ("lessOrEqual", "greaterThan") if tree.or_equal[each] else ("lessThan", "greaterOrEqual")
        cut = float(tree.threshold[each])
        zero_is_left = bool(tree.missing_left[each]) if zero_is_missing else None
        if zero_is_left == (cut >= 0.0 if tree.or_equal[each] else cut > 0.0):
            zero_is_left = None  # it goes there as a number, too
        for child, sign, is_left in ((left, signs[0], True), (right, signs[1], False)):
            below = _add(above, "Node", id=str(child))
            takes_zero = None if zero_is_left is None else zero_is_left == is_left
            _predicate(below, _field(int(tree.feature[each])), sign, _number(cut), takes_zero=takes_zero)
            waiting.append((below, child))


def _predicate(node: etree._Element, field: str, sign: str, cut: str, *, takes_zero: bool | None) -> None:
    """Say which rows come to a node; with ``takes_zero``, 0 comes, or does not, whatever the comparison says."""
    if takes_zero is None:
        _add(node, "SimplePredicate", field=field, operator=sign, value=cut)
        return
    both = _add(node, "CompoundPredicate", booleanOperator="or" if takes_zero else "and")
    _add(both, "SimplePredicate", field=field, operator=sign, value=cut)
    _add(both, "SimplePredicate", field=field, operator="equal" if takes_zero else "notEqual", value="0")


def _line(root: etree._Element, plain: PlainModel, line: Line) -> None:
    weights = line.coefficients[0] / line.scale
    used = np.flatnonzero(weights).tolist()
    model = _add(root, "RegressionModel", functionName="regression", modelName=plain.about["deployr.model_id"])
    _schema(model, used)
    _output(model, plain, base=0.0, steepness=1.0)
    table = _add(model, "RegressionTable", intercept=_number(float(line.intercepts[0])))
    for place in used:
        _add(table, "NumericPredictor", name=_field(place), coefficient=_number(float(weights[place])))


def _schema(model: etree._Element, used: Iterable[int]) -> None:
    schema = _add(model, "MiningSchema")
    for place in used:
        _add(schema, "MiningField", name=_field(place), missingValueReplacement="0")


def _output(model: etree._Element, plain: PlainModel, *, base: float, steepness: float) -> None:
    """Say how the sum becomes the answer: base, logistic function, calibration."""
    output = _add(model, "Output")
    _add(output, "OutputField", name=SUM, feature="predictedValue", optype="continuous", dataType="double")
    raw = _transformed(output, RAW if plain.calibration is not None else plain.outputs.headline)
    is_plain = plain.model.ending == "identity" and base == 0.0
    if is_plain:
        _add(raw, "FieldRef", field=SUM)
    elif plain.model.ending == "identity":
        _plus_base(raw, base)
    else:
        _logistic(raw, -steepness, lambda at: _plus_base(at, base))
    match plain.calibration:
        case IsotonicTable(thresholds=thresholds, values=values):
            _points(_transformed(output, plain.outputs.headline), thresholds, values)
        case SigmoidTable(a=a, b=b):
            at = _transformed(output, plain.outputs.headline)
            _logistic(at, 1.0, lambda inner: _linear(inner, a, b))


def _transformed(output: etree._Element, name: str) -> etree._Element:
    return _add(output, "OutputField", name=name, feature="transformedValue", optype="continuous", dataType="double")


def _logistic(at: etree._Element, factor: float, exponent: Callable[[etree._Element], None]) -> None:
    """Say ``1 / (1 + exp(factor · exponent))``."""
    divided = _add(at, "Apply", function="/")
    _constant(divided, 1.0)
    total = _add(divided, "Apply", function="+")
    _constant(total, 1.0)
    product = _add(_add(total, "Apply", function="exp"), "Apply", function="*")
    _constant(product, factor)
    exponent(product)


def _plus_base(at: etree._Element, base: float) -> None:
    total = _add(at, "Apply", function="+")
    _add(total, "FieldRef", field=SUM)
    _constant(total, base)


def _linear(at: etree._Element, a: float, b: float) -> None:
    total = _add(at, "Apply", function="+")
    product = _add(total, "Apply", function="*")
    _constant(product, a)
    _add(product, "FieldRef", field=RAW)
    _constant(total, b)


def _points(at: etree._Element, thresholds: Sequence[float], values: Sequence[float]) -> None:
    if len(thresholds) == 1:
        _constant(at, values[0])
        return
    line = _add(at, "NormContinuous", field=RAW, outliers="asExtremeValues")
    for threshold, value in zip(thresholds, values, strict=True):
        _add(line, "LinearNorm", orig=_number(threshold), norm=_number(value))


def _constant(at: etree._Element, value: float) -> None:
    _add(at, "Constant", dataType="double").text = _number(value)


def _used(trees: Iterable[Tree]) -> list[int]:
    return sorted({int(place) for tree in trees for place in tree.feature if place >= 0})


def _field(place: int) -> str:
    return f"x{place}"


def _number(value: float) -> str:
    """Write a number with as many digits as it takes to read the same one back."""
    return repr(value + 0.0)


def _add(parent: etree._Element, tag: str, **attributes: str) -> etree._Element:
    said = {name: _UNPRINTABLE.sub("?", value) for name, value in attributes.items()}
    return etree.SubElement(parent, f"{{{NAMESPACE}}}{tag}", said)
