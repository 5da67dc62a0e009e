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


def _in_network(node: onnx.NodeProto) -> bool:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return any(NETWORK in scope.split(".") for scope in ast.literal_eval(scopes))
