"""data/dataset, data/weights -> data/models/vit: a Vision Transformer fine-tuned on anomalies.

Killed at any point, the next `dvc repro train_vit` goes on from the last complete checkpoint and
ends with the bytes of a run that was never killed. On several GPUs: `torchrun --nproc-per-node gpu
stages/train_vit.py`
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch.utils.data import Dataset
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from blackswan.data.dataset import Pictures, Split
from blackswan.detectors import frozen, vit
from blackswan.detectors.interface import LOSSES
from blackswan.errors import run
from blackswan.networks import processes, sharing
from blackswan.networks.backbones import check_scale
from blackswan.networks.callbacks import (
    KeepCheckpoints,
    Progress,
    epochs_if_stopped,
    needed_by,
)
from blackswan.networks.checkpoints import fingerprint, last_complete, remove
from blackswan.networks.curves import write_curves, write_losses
from blackswan.outputs import replace_folder
from blackswan.params import Section, Size, load_section
from blackswan.tracking.runs import Record, Tracker

DATASET = Path("data/dataset")
WEIGHTS = Path("data/weights")
MODEL = Path("data/models/vit")
CURVES = Path("metrics/train_vit")
CHECKPOINTS = Path("data/checkpoints/train_vit")
SPLITS = ("train", "validation")


class Params(Section):
    """How the network is fine-tuned."""

    seed: int = Field(ge=0)
    backbone: str  # a name of fetch_weights
    image_size: Size
    frozen_blocks: int = Field(ge=0)  # from the front, left as the weights have them
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)  # of the pretrained layers
    head_learning_rate: float = Field(gt=0)  # of the new heads
    weight_decay: float = Field(ge=0)
    early_stopping_patience: int = Field(ge=1)  # epochs without a lower validation loss


def train(network: vit.Network, inputs: vit.Input, params: Params, checkpoints: Path) -> Trainer:
    """Fine-tune the network; it ends as it was after the epoch with the lowest validation loss."""
    share = processes.share_of(params.batch_size, "train_vit.batch_size")
    splits = [Split(DATASET, name) for name in SPLITS]
    everything = [split.images(range(len(split))) for split in splits]
    check_scale(sum(everything, Pictures([])).sizes, params.image_size, "train_vit.image_size")
    images = [vit.TrainingRows(split, inputs) for split in splits]
    trained: vit.Network | frozen.Tail = network
    rows: Sequence[Dataset] = images
    if params.frozen_blocks:
        trained = tail = frozen.Tail(network, params.frozen_blocks, params.image_size)
        rows = [tail.remember(each, params.batch_size, CHECKPOINTS) for each in images]
    heads = {id(parameter) for parameter in network.heads}
    body = [p for p in trained.parameters() if p.requires_grad and id(p) not in heads]
    optimizer = torch.optim.AdamW(
        [
            {"params": body, "lr": params.learning_rate},
            {"params": network.heads, "lr": params.head_learning_rate},
        ],
        weight_decay=params.weight_decay,
    )
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        use_cpu=processes.use_cpu(),
        seed=params.seed,
        num_train_epochs=params.epochs,
        per_device_train_batch_size=share,
        per_device_eval_batch_size=share,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        prediction_loss_only=True,
        remove_unused_columns=False,
        label_names=["labels", "masks"],
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.accelerator.is_available(),
        ddp_find_unused_parameters=not params.frozen_blocks,  # DINOv2's embedding has one
    )
    trainer = sharing.SharingTrainer(
        trained,
        arguments,
        train_dataset=rows[0],
        eval_dataset=rows[1],
        optimizers=(optimizer, None),
        callbacks=[
            EarlyStoppingCallback(params.early_stopping_patience),
            KeepCheckpoints(),
            Progress("train_vit"),
        ],
    )
    trainer.remove_callback(PrinterCallback)  # what it has in place of the bar: it prints dicts
    with processes.join().main_process_first():
        checkpoint = last_complete(checkpoints, needed_by)
    if checkpoint and (epochs := epochs_if_stopped(checkpoint)):
        arguments.num_train_epochs = epochs
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.accelerator.wait_for_everyone()  # rank 0 deletes the checkpoints that all reload
    if params.frozen_blocks:
        tail.put_back()
    return trainer


def name_of_run(params: Params) -> str:
    """Name the run by all that a checkpoint depends on: params, data, weights and code."""
    data = [path for name in SPLITS for path in sorted((DATASET / name).iterdir())]
    weights = sorted((WEIGHTS / params.backbone).iterdir())
    code = [vit.__file__, frozen.__file__, processes.__file__, sharing.__file__]
    return fingerprint(params.model_dump_json(), [*data, *weights, *map(Path, [__file__, *code])])


@processes.one_voice
def main() -> None:
    """Train, then write the model and its curves."""
    params = load_section(Params, "train_vit")
    vit.check_backbone(WEIGHTS / params.backbone, params.image_size, params.frozen_blocks)
    tracker = Tracker("train_vit")
    set_seed(params.seed)
    inputs = vit.Input.of_weights(WEIGHTS / params.backbone, params.image_size)
    checkpoints = CHECKPOINTS / name_of_run(params)
    network = vit.Network.from_weights(WEIGHTS / params.backbone)
    trainer = train(network, inputs, params, checkpoints)
    if not trainer.is_world_process_zero():
        return
    state = trainer.state
    with replace_folder(MODEL) as folder, replace_folder(CURVES) as curves:
        vit.Detector(network, inputs).save(folder)
        write_losses(state.log_history, folder / LOSSES)
        write_curves(state.log_history, curves)
    remove(CHECKPOINTS)
    tracker.record(
        Record(
            params={"train_vit": params},
            reads=[*(DATASET / name for name in SPLITS), WEIGHTS / params.backbone],
            writes=[MODEL],
            metrics={"validation_loss": state.best_metric},
            curves=MODEL / LOSSES,
        )
    )
    print(f"{MODEL}: validation loss {state.best_metric:.5f} after {state.epoch:.0f} epochs")


if __name__ == "__main__":
    run(main)
