"""EfficientNet-Lite (arXiv 1905.11946, without squeeze-and-excitation), built of its state dict.

The package that goes with the weights gives no intermediate features. Batch norms are folded into
the convolutions before them.
"""

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from blackswan.networks.convolutions import Convolution, in_turn

EPSILON = 1e-3  # of the batch norms of TensorFlow's EfficientNet; torch's own is 1e-5
SCALES = {  # width and depth, against Lite0
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
    "efficientnet_lite3": (1.2, 1.4),
    "efficientnet_lite4": (1.4, 1.8),
}


class _Stage(NamedTuple):
    blocks: int
    stride: int  # of the first
    channels: int


STAGES = (
    _Stage(1, 1, 16), _Stage(2, 2, 24), _Stage(2, 2, 40), _Stage(3, 2, 80), _Stage(3, 1, 112),
    _Stage(4, 2, 192), _Stage(1, 1, 320),
)  # fmt: skip
LAYERS = range(len(STAGES))


def scaled_stages(kind: str) -> list[_Stage]:
    """Return the stages of `kind`: the first and the last keep their single block."""
    width, depth = SCALES[kind]
    stages = []
    for number, stage in enumerate(STAGES):
        ends = number in (LAYERS[0], LAYERS[-1])
        blocks = stage.blocks if ends else math.ceil(stage.blocks * depth)
        stages.append(_Stage(blocks, stage.stride, _rounded(stage.channels * width)))
    return stages


def _rounded(channels: float) -> int:
    """Return a multiple of 8 near `channels`, less than a tenth below it."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class EfficientNetLite(nn.Module):
    """The outputs of chosen stages, 0 to 6; their strides are 2 4 8 16 16 32 32."""

    def __init__(self, kind: str, state: dict[str, Tensor], layers: list[int]) -> None:
        """Build `kind`, a name of SCALES, of a state dict, up to the deepest of `layers`.

        Raises KeyError where a tensor is absent and ValueError where the state is of another kind.
        """
        super().__init__()
        self.layers = layers
        self.stem = _Convolution(state, "_conv_stem", "_bn0", stride=2)
        self.stages, index = nn.ModuleList(), 0
        for blocks, stride, channels in scaled_stages(kind)[: max(layers) + 1]:
            stage = []
            for step in [stride] + [1] * (blocks - 1):
                block = _Block(state, f"_blocks.{index}.", step)
                if block.channels != channels:
                    raise ValueError(
                        f"_blocks.{index} has {block.channels} channels, {kind} has {channels}"
                    )
                stage.append(block)
                index += 1
            self.stages.append(nn.Sequential(*stage))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (N, 3, H, W) to one (N, C, h, w) per layer."""
        return in_turn(self._forward, images)

    def _forward(self, images: Tensor) -> list[Tensor]:
        x, outputs = self.stem(images), {}
        for number, stage in enumerate(self.stages):
            outputs[number] = x = stage(x)
        return [outputs[layer] for layer in self.layers]


class _Block(nn.Module):
    """An inverted residual: widen, filter each channel, narrow, add the input if shapes agree."""

    def __init__(self, state: dict[str, Tensor], name: str, stride: int) -> None:
        super().__init__()
        convolutions = [
            _Convolution(state, f"{name}_depthwise_conv", f"{name}_bn1", stride),
            _Convolution(state, f"{name}_project_conv", f"{name}_bn2", bounded=False),
        ]
        if f"{name}_expand_conv.weight" in state:
            convolutions.insert(0, _Convolution(state, f"{name}_expand_conv", f"{name}_bn0"))
        self.channels = convolutions[-1].channels_out
        self.residual = stride == 1 and convolutions[0].channels_in == self.channels
        self.layers = nn.Sequential(*convolutions)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + x if self.residual else self.layers(x)


class _Convolution(Convolution):
    """Padded as TensorFlow does; ReLU6 follows if bounded."""

    def __init__(
        self, state: dict[str, Tensor], name: str, norm: str, stride: int = 1, *,
        bounded: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(state, name, norm, EPSILON, stride)
        self.bounded = bounded

    def forward(self, x: Tensor) -> Tensor:
        padding = self.kernel // 2
        if self.stride > 1:
            (above, below), (left, right) = (self._same_padding(side) for side in x.shape[2:])
            x, padding = pad(x, (left, right, above, below)), 0
        x = conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return x.clamp_(0, 6) if self.bounded else x

    def _same_padding(self, side: int) -> tuple[int, int]:
        """Return TensorFlow's "SAME" padding before and after: the odd pixel comes after."""
        total = max((math.ceil(side / self.stride) - 1) * self.stride + self.kernel - side, 0)
        return total // 2, total - total // 2
