"""A model as ONNX: float64 throughout, so that it answers as deployr does but for the order in which trees are added.

One input, ``features``, float64 of shape (n, n_features); one output, ``outputs``, float64 of shape (n, n_outputs).
What each column means stands in the file's metadata, under ``deployr.features`` and ``deployr.outputs``.

Source: ONNX operators, ai.onnx.ml TreeEnsemble, version 5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deployr_cli.edge.plain import Line, PlainModel, Tree, Trees
from deployr_core.scoring import IsotonicTable, SigmoidTable

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "features", "outputs"
OPSETS = {"": 18, "ai.onnx.ml": 5}
_IR_VERSION = 10
_LESS_OR_EQUAL, _LESS = 0, 1
"""Of the operator: its modes of comparison."""
_SUM = 1


class _Graph:
    """Nodes and constants, as they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, named: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node; give the name of its output."""
        from onnx import helper

        name = named or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.float64) -> str:
        """Add a constant; give its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name


def onnx_model(plain: PlainModel) -> onnx.ModelProto:
    """Give the model as ONNX, checked by ONNX's own checker."""
    import onnx
    from onnx import helper

    graph = _Graph()
    number = _trees(graph, plain.model) if isinstance(plain.model, Trees) else _line(graph, plain.model)
    if plain.model.ending == "sigmoid":
        number = graph.add("Sigmoid", number)
    elif plain.model.ending == "softmax":
        number = graph.add("Softmax", number, axis=1)
    match plain.calibration:
        case IsotonicTable() as table:
            number = _isotonic(graph, number, table)
        case SigmoidTable(a=a, b=b):
            scaled = graph.add("Mul", number, graph.constant(-a))
            number = graph.add("Sigmoid", graph.add("Add", scaled, graph.constant(-b)))
    graph.add("Identity", number, named=OUTPUT)
    double = onnx.TensorProto.DOUBLE
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            plain.about["deployr.model_id"],
            [helper.make_tensor_value_info(INPUT, double, ["n", len(plain.names)])],
            [helper.make_tensor_value_info(OUTPUT, double, ["n", len(plain.outputs.names)])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
        producer_name="deployr",
        ir_version=_IR_VERSION,
    )
    columns = {"deployr.features": json.dumps(plain.names), "deployr.outputs": json.dumps(plain.outputs.names)}
    helper.set_model_props(made, {**plain.about, **columns})
    onnx.checker.check_model(made)
    return made


def answers(content: bytes, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score rows, shape (n_rows, n_features), by a file, in ONNX Runtime; shape (n_rows, n_outputs)."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT], {INPUT: rows})[0], dtype=np.float64)


def _line(graph: _Graph, line: Line) -> str:
    scaled = graph.add("Div", INPUT, graph.constant(line.scale[None, :]))
    total = graph.add("MatMul", scaled, graph.constant(line.coefficients.T))
    return graph.add("Add", total, graph.constant(line.intercepts[None, :]))


def _trees(graph: _Graph, model: Trees) -> str:
    row = INPUT
    if model.zero_is_missing:
        is_zero = graph.add("Equal", row, graph.constant(0.0))
        row = graph.add("Where", is_zero, graph.constant(np.nan), row)
    total = graph.add("TreeEnsemble", row, domain="ai.onnx.ml", **_ensemble(model))
    if model.n_averaged is not None:
        total = graph.add("Div", total, graph.constant(float(model.n_averaged)))
    total = graph.add("Add", total, graph.constant(model.base[None, :]))
    return total if model.steepness == 1.0 else graph.add("Mul", total, graph.constant(model.steepness))


@dataclass
class _Side:
    """Where nodes lead on one side: to a node or, where it is a leaf, to a leaf."""

    children: list[int] = field(default_factory=list)
    are_leaves: list[int] = field(default_factory=list)

    def lead(self, node: int, child: int, *, is_leaf: bool) -> None:
        self.children[node], self.are_leaves[node] = child, int(is_leaf)


@dataclass
class _Ensemble:
    """All trees in the operator's flat lists; a tree that feeds several outputs is there once for each."""

    roots: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    yes: _Side = field(default_factory=_Side)
    no: _Side = field(default_factory=_Side)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, tree: Tree, output: int) -> None:
        inner = np.flatnonzero(tree.feature >= 0)
        if not inner.size:
            # A tree of one leaf: the operator wants a node that splits, so both ways lead to it.
            root = self._node(0, 0.0, or_equal=True, missing_left=True)
            self.roots.append(root)
            for side in (self.yes, self.no):
                side.lead(root, self._leaf(output, float(tree.leaf[0, output])), is_leaf=True)
            return
        places = {
            int(node): self._node(
                int(tree.feature[node]),
                float(tree.threshold[node]),
                or_equal=bool(tree.or_equal[node]),
                missing_left=bool(tree.missing_left[node]),
            )
            for node in inner
        }
        self.roots.append(places[0])
        for node, place in places.items():
            for side, child in ((self.yes, int(tree.left[node])), (self.no, int(tree.right[node]))):
                if child in places:
                    side.lead(place, places[child], is_leaf=False)
                else:
                    side.lead(place, self._leaf(output, float(tree.leaf[child, output])), is_leaf=True)

    def attributes(self, n_outputs: int) -> dict[str, Any]:
        from onnx import numpy_helper

        return {
            "n_targets": n_outputs,
            "aggregate_function": _SUM,
            "tree_roots": self.roots,
            "nodes_featureids": self.features,
            "nodes_splits": numpy_helper.from_array(np.array(self.splits, dtype=np.float64)),
            "nodes_modes": numpy_helper.from_array(np.array(self.modes, dtype=np.uint8)),
            "nodes_missing_value_tracks_true": self.missing,
            "nodes_truenodeids": self.yes.children,
            "nodes_falsenodeids": self.no.children,
            "nodes_trueleafs": self.yes.are_leaves,
            "nodes_falseleafs": self.no.are_leaves,
            "leaf_targetids": self.targets,
            "leaf_weights": numpy_helper.from_array(np.array(self.weights, dtype=np.float64)),
        }

    def _node(self, feature: int, split: float, *, or_equal: bool, missing_left: bool) -> int:
        self.features.append(feature)
        self.splits.append(split)
        self.modes.append(_LESS_OR_EQUAL if or_equal else _LESS)
        self.missing.append(int(missing_left))
        for side in (self.yes, self.no):
            side.children.append(0)
            side.are_leaves.append(0)
        return len(self.features) - 1

    def _leaf(self, output: int, weight: float) -> int:
        self.targets.append(output)
        self.weights.append(weight)
        return len(self.weights) - 1


def _ensemble(model: Trees) -> dict[str, Any]:
    ensemble = _Ensemble()
    for tree in model.trees:
        for output in range(model.base.size):
            if tree.leaf[:, output].any() or not ensemble.roots:
                ensemble.add(tree, output)
    return ensemble.attributes(model.base.size)


def _isotonic(graph: _Graph, number: str, table: IsotonicTable) -> str:
    """Draw the line through the points: which two the number lies between, then as numpy.interp has it."""
    import onnx

    x, y = np.array(table.thresholds), np.array(table.values)
    if x.size == 1:
        return graph.add("Add", graph.add("Mul", number, graph.constant(0.0)), graph.constant(y[0]))
    is_reached = graph.add("GreaterOrEqual", number, graph.constant(x[None, :]))
    reached = graph.add("Cast", is_reached, to=onnx.TensorProto.INT64)
    count = graph.add("ReduceSum", reached, graph.constant([1], np.int64), keepdims=1)
    before = graph.add("Sub", count, graph.constant(1, np.int64))
    place = graph.add("Clip", before, graph.constant(0, np.int64), graph.constant(x.size - 2, np.int64))
    slopes, starts, values, nexts = (
        graph.add("Gather", graph.constant(each), place, axis=0)
        for each in (np.diff(y) / np.diff(x), x[:-1], y[:-1], y[1:])
    )
    risen = graph.add("Mul", slopes, graph.add("Sub", number, starts))
    line = graph.add("Min", graph.add("Add", risen, values), nexts)
    above = graph.add("Where", graph.add("GreaterOrEqual", number, graph.constant(x[-1])), graph.constant(y[-1]), line)
    return graph.add("Where", graph.add("Less", number, graph.constant(x[0])), graph.constant(y[0]), above)
