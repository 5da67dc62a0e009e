"""Do our backbones say what their reference implementations say? Layer by layer, as a table.

EfficientNet-Lite against its package, the ResNets against torchvision (where it is not installed,
against the plain modules below, whose batch norms are not folded) and ConvNeXt against the hidden
states of transformers. Weights are those of data/weights where they are there, else random. Writes
benchmarks/backbones.json. `python benchmarks/backbones.py`
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from measured import record
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import ConvNextConfig, ConvNextModel, ConvNextV2Config, ConvNextV2Model

from blackswan.errors import run
from blackswan.networks import efficientnet, resnet
from blackswan.networks.backbones import load_backbone, to_tensor
from blackswan.networks.weights import IMAGENET
from blackswan.outputs import write_json

WEIGHTS = Path("data/weights")
RESULT = Path("benchmarks/backbones.json")
SIZE = (224, 160)
RESNETS = ("resnet18", "resnet50", "wide_resnet50_2")
LITE = ("efficientnet_lite0", "efficientnet_lite2")


class PlainResNet(nn.Module):
    """A ResNet as the papers draw it; layer1 to layer4 are called as torchvision calls them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for number, blocks in enumerate(resnet.BLOCKS[kind]):
            outputs = (64 if kind in resnet.BASIC else 256) << number
            stage = []
            for index in range(blocks):
                stride = 2 if number and not index else 1
                stage.append(PlainBlock(kind, inputs, outputs, stride))
                inputs = outputs
            self.add_module(f"layer{number + 1}", nn.Sequential(*stage))

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to the output of layer4."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x


class PlainBlock(nn.Module):
    """A basic block or a bottleneck."""

    def __init__(self, kind: str, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        width = outputs // (2 if kind.startswith("wide") else 4)
        steps = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        if kind in resnet.BASIC:
            steps = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        self.depth = len(steps)
        for number, (before, after, kernel, step) in enumerate(steps, start=1):
            convolution = nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(after))
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, h, w)."""
        inner = x
        for number in range(1, self.depth + 1):
            inner = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(inner))
            inner = inner.relu() if number < self.depth else inner
        return (inner + self.downsample(x)).relu()


def randomise(network: nn.Module) -> nn.Module:
    """Give batch norms statistics that folding them wrongly would show."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0)
            module.running_var.uniform_(0.8, 1.2)
            for values in (module.bias.data, module.running_mean):
                values.uniform_(-0.3, 0.3)
    return network.eval()


def write(folder: Path, state: dict[str, Tensor], config: dict[str, object]) -> Path:
    """Write a folder of weights as fetch_weights does."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()},
              folder / "model.safetensors")  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    return folder


def outputs_of(network: nn.Module, modules: list[nn.Module], pixels: Tensor) -> list[Tensor]:
    """Return what some modules of a network put out."""
    found: dict[int, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda *a, number=number: found.update({number: a[2]}))
        for number, module in enumerate(modules)
    ]
    with torch.inference_mode():
        network(pixels)
    for hook in hooks:
        hook.remove()
    return [found[number] for number in range(len(modules))]


def lite(kind: str, folder: Path) -> tuple[Path, nn.Module, list[nn.Module], str]:
    """Return the folder of an EfficientNet-Lite, the package's network and its stages."""
    network = EfficientNet.from_name(kind.replace("_", "-"), image_size=None)
    origin = "its own weights"
    if (WEIGHTS / kind).is_dir():
        folder = WEIGHTS / kind
        network.load_state_dict(load_file(folder / "model.safetensors"))
    else:
        origin = "random weights"
        write(folder, randomise(network).state_dict(), {"model_type": kind})
    ends = np.cumsum([stage.blocks for stage in efficientnet.scaled_stages(kind)]) - 1
    return folder, network.eval(), [network._blocks[end] for end in ends], origin


def plain_resnet(kind: str, folder: Path) -> tuple[Path, nn.Module, list[nn.Module], str]:
    """Return the folder of a ResNet, the reference and its four layers."""
    try:
        from torchvision import models  # no dependency of ours

        network, origin = getattr(models, kind)(), "torchvision, random weights"
    except ImportError:
        network, origin = PlainResNet(kind), "plain modules, random weights"
    write(folder, randomise(network).state_dict(), {"architecture": kind})
    return folder, network, [network.get_submodule(f"layer{n}") for n in range(1, 5)], origin


def convnext(kind: str, folder: Path) -> tuple[Path, nn.Module, list[nn.Module], str]:
    """Return the folder of a ConvNeXt-Tiny, the network of transformers and its stages."""
    tiny = {"convnext": (ConvNextConfig, ConvNextModel),
            "convnextv2": (ConvNextV2Config, ConvNextV2Model)}[kind]  # fmt: skip
    network = tiny[1](tiny[0]()).eval()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    return folder, network, [*network.encoder.stages], "transformers, random weights"


def cases() -> Iterator[tuple[str, list[int], tuple[Path, nn.Module, list[nn.Module], str]]]:
    """Yield each backbone with its layers and its reference."""
    for kinds, layers, reference in (
        (LITE, efficientnet.LAYERS, lite),
        (RESNETS, resnet.LAYERS, plain_resnet),
        (("convnext", "convnextv2"), range(4), convnext),
    ):
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:
                torch.manual_seed(0)
                yield kind, list(layers), reference(kind, Path(folder))


def main() -> None:
    """Compare every layer of every backbone on two images of noise."""
    images = np.random.default_rng(0).integers(0, 256, (2, 300, 300, 3), dtype=np.uint8)
    table = {}
    for kind, layers, (folder, network, modules, origin) in cases():
        backbone = load_backbone(folder, layers, SIZE)
        pixels = to_tensor(images, SIZE, backbone.mean, backbone.std)
        differences = [
            float((found - expected).abs().max() / expected.abs().max())
            for found, expected in zip(
                backbone.embed(images), outputs_of(network, modules, pixels), strict=True
            )
        ]
        table[kind] = {
            "against": origin,
            "channels": backbone.channels,
            "largest_difference": max(differences),  # of a layer, as a share of its largest value
        }
        print(f"{kind}: {max(differences):.2g}")
    write_json(RESULT, table)
    record([RESULT.name])


if __name__ == "__main__":
    run(main)
