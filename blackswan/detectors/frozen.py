"""The first blocks of a transformer, left as they are while those behind them train.

What they make of an image never changes, so every image passes them once, before the first epoch,
and an epoch costs the blocks behind them alone.
"""

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from blackswan.detectors.rows import Rows, rows_for
from blackswan.detectors.vit import Network, TrainingRows
from blackswan.networks import processes
from blackswan.networks.devices import device


class RememberedRows(Dataset):
    """Rows of a split as the tensors that `Tail.forward` takes."""

    def __init__(self, tokens: Rows, width: int, labels: Tensor, masks: Tensor) -> None:
        self.tokens, self.width = tokens, width  # (N, T * D) and D
        self.labels, self.masks = labels, masks  # (N,) and (N, h, w)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = self.tokens.take(torch.tensor([index])).view(-1, self.width)
        return {"tokens": tokens, "labels": self.labels[index], "masks": self.masks[index]}


class Tail(nn.Module):
    """What stands behind the first `count` blocks of a network; it takes what those have made.

    The frozen blocks are none of its modules, so no checkpoint holds them. The network lacks them
    until `put_back`.
    """

    def __init__(self, network: Network, count: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.image_size = network, image_size
        self.model.get_submodule("embeddings").requires_grad_(requires_grad=False)
        self.blocks = [*self.encoder.get_submodule("layer").children()]
        self.frozen = [block.eval() for block in self.blocks[:count]]
        self.stand_in = _StandIn()
        self.encoder.layer = nn.ModuleList([self.stand_in] * count + self.blocks[count:])

    @property
    def model(self) -> nn.Module:
        """The network without its heads: embeddings, blocks, norm."""
        return self.network.classifier.base_model

    @property
    def encoder(self) -> nn.Module:
        """What holds the blocks."""
        return self.model.get_submodule("encoder")

    def forward(self, tokens: Tensor, labels: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Return what `Network.forward` does, of tokens (N, T, D) in place of pixels."""
        self.stand_in.tokens = tokens
        blank = tokens.new_zeros(1).expand(len(tokens), 3, *self.image_size)
        return self.network(blank, labels, masks)

    def put_back(self) -> None:
        """Make the network whole again."""
        self.encoder.layer = nn.ModuleList(self.blocks)

    @torch.no_grad()
    def remember(self, rows: TrainingRows, batch_size: int, folder: Path) -> RememberedRows:
        """Run the rows through the frozen blocks, each process its share of them.

        What comes out of many lies in a file without a name on the disk of `folder`; raises
        InputError where that has no room for it.
        """
        self.eval()
        width = self.network.classifier.config.hidden_size
        size = self._run_frozen(rows[0]["pixel_values"][None]).numel()
        stores = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # each process keeps all
        tokens = rows_for(len(rows), size, folder, "set train_vit.frozen_blocks to 0", stores)
        labels, masks = [], []
        hidden = None if processes.join().is_main_process else True
        with tqdm(desc="train_vit", unit="image", total=len(rows), disable=hidden) as bar:

            def through_frozen(batch: range) -> dict[str, Tensor]:
                read = default_collate([rows[index] for index in batch])
                made = self._run_frozen(read.pop("pixel_values")).flatten(1)
                return {"tokens": made, **read}

            for batch in processes.computed_together(through_frozen, len(rows), batch_size):
                tokens.append(batch["tokens"])
                labels.append(batch["labels"])
                masks.append(batch["masks"])
                bar.update(len(batch["labels"]))
        return RememberedRows(tokens, width, torch.cat(labels), torch.cat(masks))

    def _run_frozen(self, pixels: Tensor) -> Tensor:
        """Return the tokens (N, T, D) that the frozen blocks make of pixels (N, 3, H, W)."""
        tail = self.encoder.get_submodule("layer")
        self.encoder.layer = nn.ModuleList(self.frozen)
        with self.frozen[-1].register_forward_hook(self.stand_in.keep):
            self.model.to(device())(pixels.to(device()), **self.network.options)
        self.encoder.layer = tail
        return self.stand_in.tokens.cpu()


class _StandIn(nn.Module):
    """Takes the place of frozen blocks and returns what they have made."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = torch.empty(0)
        self.tuples = False  # of some networks a block returns (tokens,)

    def keep(self, _block: nn.Module, _inputs: object, output: Tensor | tuple[Tensor]) -> None:
        """Take what the last frozen block returns, as a hook."""
        self.tuples = isinstance(output, tuple)
        self.tokens = output[0] if isinstance(output, tuple) else output

    def forward(self, *_: object, **__: object) -> Tensor | tuple[Tensor]:
        return (self.tokens,) if self.tuples else self.tokens
