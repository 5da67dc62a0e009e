"""The Trainer of transformers, whose processes together learn what a lone one learns."""

from typing import Any

from torch import Tensor, nn
from transformers import Trainer

IGNORED = -100  # a label that cross_entropy leaves out
OUTSIDE = -1.0  # a patch that lies in no image


class SharingTrainer(Trainer):
    """A Trainer that counts each image once, however many processes there are.

    accelerate fills the last batch of an epoch with images that were there before, so that each
    process has equally many; `labels` and `masks` leave these out.
    """

    def _prepare_inputs(self, inputs: dict[str, Tensor | Any]) -> dict[str, Tensor | Any]:
        """Mark what fills up the last batch."""
        inputs = super()._prepare_inputs(inputs)
        state = self.accelerator.gradient_state
        if state.end_of_dataloader and state.remainder > 0:
            before = self.args.process_index * len(inputs["labels"])
            counted = max(0, state.remainder - before)
            inputs["labels"][counted:] = IGNORED
            inputs["masks"][counted:] = OUTSIDE
        return inputs

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the loss of the whole batch, which evaluation weighs by its images."""
        loss, logits, labels = super().prediction_step(
            model, inputs, prediction_loss_only, ignore_keys
        )
        return self.accelerator.reduce(loss, "mean"), logits, labels
