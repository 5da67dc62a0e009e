"""ResNets (arXiv 1512.03385) and Wide ResNets (1605.07146) by the names of timm and torchvision.

Both call their tensors conv1, bn1, layer1.0.conv1 and so on, and both stride in the convolution of
3 x 3 ("version 1.5"). Batch norms are folded into the convolutions before them.
"""

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from blackswan.networks.convolutions import Convolution, in_turn

EPSILON = 1e-5  # of the batch norms
BLOCKS = {  # of layer1 to layer4
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "wide_resnet50_2": (3, 4, 6, 3),
    "wide_resnet101_2": (3, 4, 23, 3),
}
LAYERS = range(1, 5)
BASIC = ("resnet18", "resnet34")  # blocks of two convolutions; of the others three


class ResNet(nn.Module):
    """The outputs of chosen layers, 1 to 4; their strides are 4 8 16 32."""

    def __init__(self, kind: str, state: dict[str, Tensor], layers: list[int]) -> None:
        """Build `kind`, a name of BLOCKS, of a state dict, up to the deepest of `layers`.

        Raises KeyError where a tensor is absent and ValueError where the state is of another kind.
        """
        super().__init__()
        self.layers = layers
        self.stem = Convolution(state, "conv1", "bn1", EPSILON, stride=2)
        self.stages = nn.ModuleList()
        for number, blocks in enumerate(BLOCKS[kind][: max(layers)], start=1):
            if f"layer{number}.{blocks}.conv1.weight" in state:
                raise ValueError(f"layer{number} has more than the {blocks} blocks of {kind}")
            width = 32 * 2**number * (2 if kind.startswith("wide_") else 1)
            stage = []
            for index in range(blocks):
                stride = 2 if number > 1 and index == 0 else 1
                block = _Block(state, f"layer{number}.{index}.", stride, 2 if kind in BASIC else 3)
                if block.width != width:
                    raise ValueError(
                        f"layer{number}.{index} is {block.width} wide, {kind} is {width}"
                    )
                stage.append(block)
            self.stages.append(nn.Sequential(*stage))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (N, 3, H, W) to one (N, C, h, w) per layer."""
        return in_turn(self._forward, images)

    def _forward(self, images: Tensor) -> list[Tensor]:
        x, outputs = max_pool2d(self.stem(images).relu_(), 3, 2, 1), {}
        for number, stage in enumerate(self.stages, start=1):
            outputs[number] = x = stage(x)
        return [outputs[layer] for layer in self.layers]


class _Block(nn.Module):
    """Two convolutions of 3 x 3, or one between two of 1 x 1, and what goes round them."""

    def __init__(self, state: dict[str, Tensor], name: str, stride: int, depth: int) -> None:
        super().__init__()
        strides = (stride, 1) if depth == 2 else (1, stride, 1)
        self.convolutions = nn.ModuleList(
            Convolution(state, f"{name}conv{number}", f"{name}bn{number}", EPSILON, step)
            for number, step in enumerate(strides, start=1)
        )
        self.width = self.convolutions[0].channels_out
        self.shortcut: nn.Module = nn.Identity()
        if f"{name}downsample.0.weight" in state:
            self.shortcut = Convolution(
                state, f"{name}downsample.0", f"{name}downsample.1", EPSILON, stride
            )

    def forward(self, x: Tensor) -> Tensor:
        *first, last = self.convolutions
        inner = x
        for convolution in first:
            inner = convolution(inner).relu_()
        return last(inner).add_(self.shortcut(x)).relu_()
