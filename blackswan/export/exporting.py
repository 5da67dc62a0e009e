"""From a complete detector to a folder that runs without torch; see runtime.py for what reads it.

Torch traces the detector into ONNX, ONNX takes the photo in front, OpenVINO reads ONNX. Whatever
comes out judges the validation images before it is written.
"""

import json
import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.metrics import roc_auc_score
from torch import nn

from blackswan.data.dataset import Split
from blackswan.data.sources.video import Sampling
from blackswan.errors import InputError
from blackswan.evaluation import model as complete
from blackswan.evaluation.model import Model
from blackswan.export import parity
from blackswan.export.graphs import Judge, Photo
from blackswan.export.quantising import quantised
from blackswan.export.runtime import (
    EXPORT,
    FILES,
    NORMALS,
    Auroc,
    Exported,
    Graph,
    Parity,
    Runtime,
    sha256,
)
from blackswan.outputs import replace_folder
from blackswan.reporting.verdicts import list_source, open_images
from blackswan.tracking.runs import dvc_hash

WORST_AUROC = 0.005  # that INT8 may lose on validation
CALIBRATION = 128  # normal images of train, at most, that tell INT8 its ranges
COMPARED = 16  # photos
OUTPUTS = ["image_scores", "anomaly_maps", "logits"]


@dataclass(frozen=True)
class Photos:
    """Photos of one size that the graph is to take as they come out of their files."""

    size: tuple[int, int]  # height and width
    images: Iterable[np.ndarray]  # some of them, decoded


def export(
    folder: Path, out: Path, runtime: Runtime, dataset: Path, photos: Photos | None, *, int8: bool
) -> Exported:
    """Write the detector of `folder` as one graph into `out`, and return what stands there.

    The graph takes prepared images, and `photos` if there are any. It is compared with the detector
    on all validation images of `dataset`, and on the photos. Raises InputError, and writes nothing,
    where it differs; where, in INT8, image AUROC on validation falls by more than WORST_AUROC; and
    where what the detector does is no graph.
    """
    out = out.absolute()
    if out.is_dir() and any(out.iterdir()) and not (out / EXPORT).exists():
        raise InputError(f"{out} holds other files; name an empty folder with --out")
    model, validation = complete.load(folder), Split(dataset, "validation")
    if model.ignored:
        raise InputError(
            f"{folder} leaves regions of {model.ignored.camera} out, which a graph does not; "
            "export a detector of a run whose ignore.camera is ''"
        )
    prepared = model.for_prepared(validation.preprocessing)
    size = _one_size(validation)
    if photos and model.facts.preprocessing.pose != "none":
        raise InputError(
            f"{folder} lays parts upright, which is no graph; export it with --prepared, for "
            "images that were laid, cropped and scaled already"
        )
    everything = range(len(validation))
    with replace_folder(out) as partial:
        traced = _trace(Judge(model.detector, size).eval(), size, OUTPUTS)
        if int8:
            train = Split(dataset, "train").normal_images
            chosen = np.unique(np.linspace(0, len(train) - 1, CALIBRATION).astype(int))
            traced = quantised(traced, train.take(chosen.tolist()))
        if photos:
            traced = _with_photo(traced, model, photos.size, size)
        _write(traced, partial, runtime)
        scores = json.dumps([part.tolist() for part in model.normal_scores])
        (partial / NORMALS).write_text(scores + "\n", encoding="utf-8")
        exported = Exported(
            facts=model.facts,
            runtime=runtime,
            int8=int8,
            probabilities=model.score_prepared([next(iter(validation.images([0])))]).probabilities,
            size=size,
            photo=photos.size if photos else None,
            detector_md5=dvc_hash(folder),
            files_sha256={name: sha256(partial / name) for name in (*FILES[runtime], NORMALS)},
            validation=Parity(images=0, image_score=0, anomaly_map=0, other_verdicts=0),
            photos=None,
            auroc=None,
        )
        graph = Graph(partial, exported)
        on_validation = parity.compare(prepared, graph, validation.images(everything))
        on_photos = parity.compare(model, graph, photos.images, photos=True) if photos else None
        auroc = None
        if int8:
            auroc = _auroc(validation, on_validation)
            _refuse_alarms(validation, on_validation, model.facts)
        else:
            parity.refuse_difference(on_validation.parity, "validation images")
            if on_photos:
                parity.refuse_difference(on_photos.parity, "photos")
        exported = exported.model_copy(
            update={
                "validation": on_validation.parity,
                "photos": on_photos.parity if on_photos else None,
                "auroc": auroc,
            }
        )
        text = json.dumps(exported.model_dump(), indent=2) + "\n"  # exact: not write_json
        (partial / EXPORT).write_text(text, encoding="utf-8")
    return exported


def read_photos(source: Path, bit_depth: int) -> Photos:
    """Return the photos, or frames, of a source; raises InputError where their sizes differ."""
    every_frame = Sampling(every_n_seconds=0, start_s=0, end_s=None, max_frames=None)
    files = list_source(source)
    found: list[np.ndarray] = []
    for item in islice(open_images(source, files, every_frame, bit_depth), COMPARED):
        found.append(item.read()[0])
        if found[-1].shape != found[0].shape:
            raise InputError(
                f"{source} holds images of several sizes, such as {item.frame.image}, and a graph "
                "takes photos of one; export it with --prepared"
            )
    return Photos(found[0].shape[:2], found)


def described(exported: Exported) -> list[str]:
    """Say in a few lines what the graph takes and how near it is to the detector."""
    (height, width), photo = exported.size, exported.photo
    taken = f"images of {width} x {height} pixels"
    if photo:
        taken = f"photos of {photo[1]} x {photo[0]} pixels, or prepared {taken}"
    lines = [f"the graph takes {taken}"]
    compared = {"validation images": exported.validation, "photos": exported.photos}
    for what, found in compared.items():
        if found:
            lines.append(
                f"on {found.images} {what} scores differ by {found.image_score:.1e}, maps by "
                f"{found.anomaly_map:.1e}, verdicts of {found.other_verdicts}"
            )
    if exported.auroc:
        lines.append(
            f"image AUROC on validation: {exported.auroc.detector:.4f}, in INT8 "
            f"{exported.auroc.graph:.4f}"
        )
    return lines


def _one_size(split: Split) -> tuple[int, int]:
    sizes = sorted({*split.images(range(len(split))).sizes})
    if len(sizes) != 1:
        raise InputError(
            f"a graph takes images of one size and those of validation have {len(sizes)}; set "
            "build_dataset.image_size to one size for all"
        )
    return sizes[0]


def _auroc(validation: Split, found: parity.Compared) -> Auroc:
    """Return both AUROCs; raises InputError where INT8 costs too much, or nothing can tell."""
    labels = validation.facts.label.to_numpy()
    if len({*labels.tolist()}) < 2:
        raise InputError(
            "INT8 is judged by the normal and the anomalous images of validation, and one kind is "
            "missing; export it without --int8"
        )
    detector, graph = (
        float(roc_auc_score(labels, scores)) for scores in (found.scores, found.graph_scores)
    )
    if detector - graph > WORST_AUROC:
        raise InputError(
            f"in INT8 image AUROC on validation falls from {detector:.4f} to {graph:.4f}, by more "
            f"than {WORST_AUROC}; export it without --int8"
        )
    return Auroc(detector=detector, graph=graph)


def _refuse_alarms(validation: Split, found: parity.Compared, facts: complete.Facts) -> None:
    """Raise InputError where INT8 moves more than alpha of the normal scores past the threshold."""
    normal = np.array(found.graph_scores)[validation.facts.label.to_numpy() == 0]
    share = float((normal > facts.threshold).mean()) if len(normal) else 0.0
    if share > facts.alpha:
        raise InputError(
            f"in INT8 {share:.2f} of the normal validation images are flagged, more than alpha = "
            f"{facts.alpha:g}; export it without --int8"
        )


def _trace(module: nn.Module, size: tuple[int, int], outputs: Sequence[str]) -> onnx.ModelProto:
    """Return the graph of a module that takes uint8 (N, H, W, 3) of `size`, for any N."""
    example = torch.zeros(2, *size, 3, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = len(module(example)) if isinstance(module, Judge) else 1
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module, (example,), dynamo=True, verbose=False,
            input_names=["images"], output_names=[*outputs[:count]],
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
        )  # fmt: skip
    graph = cast("torch.onnx.ONNXProgram", program).model_proto  # None only of the old exporter
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param, "for any N"
    return graph


def _with_photo(
    judge: onnx.ModelProto, model: Model, photo: tuple[int, int], size: tuple[int, int]
) -> onnx.ModelProto:
    """Put what prepares photos before the graph of prepared images, which it still takes too."""
    steps = _trace(Photo(model.facts.preprocessing), photo, ["prepared"]).graph
    _rename(steps, {"images": "photo/images"}, "photo/")  # the names of both graphs meet
    shape = [None, *size, 3]
    prepare = helper.make_graph(
        # Expand is there to fail: of a photo of another size a part alone would be judged.
        [helper.make_node("Expand", ["images", "photo/size"], ["photo/images"]), *steps.node],
        "prepare", [], [helper.make_tensor_value_info("photo/prepared", TensorProto.UINT8, shape)],
        [_constant("photo/size", [1, *photo, 1]), *steps.initializer],
    )  # fmt: skip
    keep = helper.make_graph(
        [helper.make_node("Expand", ["images", "photo/prepared_size"], ["photo/kept"])],
        "keep", [], [helper.make_tensor_value_info("photo/kept", TensorProto.UINT8, shape)],
        [_constant("photo/prepared_size", [1, *size, 1])],
    )  # fmt: skip
    choose = [
        helper.make_node("Shape", ["images"], ["photo/sides"], start=1, end=3),
        helper.make_node("Equal", ["photo/sides", "photo/known"], ["photo/equal"]),
        helper.make_node("Cast", ["photo/equal"], ["photo/both"], to=TensorProto.INT32),
        helper.make_node("ReduceMin", ["photo/both"], ["photo/all"], keepdims=0),
        helper.make_node("Cast", ["photo/all"], ["photo/is_prepared"], to=TensorProto.BOOL),
        helper.make_node(
            "If", ["photo/is_prepared"], ["prepared"], then_branch=keep, else_branch=prepare
        ),
    ]
    _rename(judge.graph, {"images": "prepared"}, "")
    nodes = [*choose, *judge.graph.node]
    del judge.graph.node[:], judge.graph.value_info[:]  # whose shapes are inferred again
    judge.graph.node.extend(nodes)
    judge.graph.initializer.append(_constant("photo/known", size))
    taken = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "height", "width", 3])
    judge.graph.input[0].CopyFrom(taken)
    onnx.checker.check_model(judge)
    return judge


def _constant(name: str, values: Sequence[int]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _rename(graph: onnx.GraphProto, names: dict[str, str], prefix: str) -> None:
    """Give the values and nodes of a graph other names: those of `names`, else with a prefix."""
    for node in graph.node:
        node.name = prefix + node.name
        for values in (node.input, node.output):
            for number, name in enumerate(values):
                if name:  # an input that is left out has none
                    values[number] = names.get(name, prefix + name)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, prefix + tensor.name)


def _write(traced: onnx.ModelProto, folder: Path, runtime: Runtime) -> None:
    path = folder / FILES["onnx"][0]
    onnx.save(traced, path)
    if runtime == "openvino":
        import openvino

        read = openvino.Core().read_model(str(path))
        openvino.save_model(read, str(folder / FILES["openvino"][0]), compress_to_fp16=False)
        path.unlink()
