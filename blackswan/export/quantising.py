"""INT8 by NNCF: the network alone, for distances between its features have no range to spare."""

import ast
import os
from collections.abc import Iterable

import numpy as np
import onnx

NETWORK = "network"  # the module of graphs.py, as the exporter names the scopes of its nodes
SCOPES = "pkg.torch.onnx.name_scopes"


def quantised(graph: onnx.ModelProto, images: Iterable[np.ndarray]) -> onnx.ModelProto:
    """Return a graph whose network computes in 8 bits, in the ranges that images (H, W, 3) have."""
    os.environ.setdefault("NNCF_CI", "1")  # nothing is reported to its makers
    import nncf

    outside = [node.name for node in graph.graph.node if not _in_network(node)]
    kinds = {node.op_type for node in graph.graph.node if _in_network(node)}
    return nncf.quantize(
        graph,
        nncf.Dataset([{"images": image[None]} for image in images]),
        ignored_scope=nncf.IgnoredScope(names=outside, validate=False),
        model_type=nncf.ModelType.TRANSFORMER if "Softmax" in kinds else None,
        subset_size=10_000,
    )


def _in_network(node: onnx.NodeProto) -> bool:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return any(NETWORK in scope.split(".") for scope in ast.literal_eval(scopes))
