"""Networks of a few operations, in ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 8


def save_pooling(file: Path, weights: np.ndarray) -> None:
    """(1, 8, 8, 3) -> the mean colour times `weights` (3, N): (1, N)."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["sure"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "axes"),
        numpy_helper.from_array(weights.astype(np.float32), "weights"),
    ]
    _save(file, nodes, [1, SIDE, SIDE, 3], [1, weights.shape[1]], constants)


def save_redness(file: Path) -> None:
    """(1, 3, 8, 8) -> its first channel, (1, 1, 8, 8)."""
    constants = [numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "parts")]
    nodes = [helper.make_node("Split", ["pixels", "parts"], ["sure", "rest"], axis=1)]
    _save(file, nodes, [1, 3, SIDE, SIDE], [1, 1, SIDE, SIDE], constants)


def _save(
    file: Path,
    nodes: list[onnx.NodeProto],
    reads: list[int],
    gives: list[int],
    constants: list[onnx.TensorProto],
) -> None:
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, reads)
    sure = helper.make_tensor_value_info("sure", TensorProto.FLOAT, gives)
    graph = helper.make_graph(nodes, "mini", [pixels], [sure], constants)
    versions = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=9), file)
