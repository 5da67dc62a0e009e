"""INT8 by NNCF: the network alone, for distances between its features have no range to spare."""

import ast
import os
from collections.abc import Iterable

import numpy as np
import onnx

from blackswan.errors import InputError

NETWORK = "network"  # the module of graphs.py, as the exporter names the scopes of its nodes
SCOPES = "pkg.torch.onnx.name_scopes"


def quantised(graph: onnx.ModelProto, images: Iterable[np.ndarray]) -> onnx.ModelProto:
    """Return a graph whose network computes in 8 bits, in the ranges that images (H, W, 3) have.

    Raises InputError where there is no network.
    """
    inside = [node for node in graph.graph.node if _in_network(node)]
    if not inside:
        raise InputError(
            "the detector has no network to compute in 8 bits; export it without --int8"
        )
    os.environ.setdefault("NNCF_CI", "1")  # nothing is reported to its makers
    import nncf

    _split_products(graph.graph)
    names = {node.name for node in inside}
    outside = [node.name for node in graph.graph.node if node.name not in names]
    has_attention = any(node.op_type == "Softmax" for node in inside)
    return nncf.quantize(
        graph,
        nncf.Dataset([{"images": image[None]} for image in images]),
        ignored_scope=nncf.IgnoredScope(names=outside, validate=False),
        model_type=nncf.ModelType.TRANSFORMER if has_attention else None,
        subset_size=10_000,
    )


def _split_products(graph: onnx.GraphProto) -> None:
    """Write the products a A B + C outside the network as three nodes.

    NNCF takes the C of any Gemm for a constant bias, and fails on one that is computed.
    """
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        factors = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type != "Gemm" or _in_network(node) or factors["transA"] or factors["transB"]:
            graph.node.append(node)
            continue
        left, right, added = node.input
        product, scaled, alpha = (f"{node.output[0]}_{part}" for part in ("ab", "scaled", "alpha"))
        graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(factors["alpha"], np.float32), alpha)
        )
        graph.node.extend(
            [
                onnx.helper.make_node("MatMul", [left, right], [product], product),
                onnx.helper.make_node("Mul", [product, alpha], [scaled], scaled),
                onnx.helper.make_node("Add", [scaled, added], list(node.output), node.name),
            ]
        )


def _in_network(node: onnx.NodeProto) -> bool:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return any(NETWORK in scope.split(".") for scope in ast.literal_eval(scopes))
