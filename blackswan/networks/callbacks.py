"""What the Trainer of transformers calls back: checkpoints that survive any kill, and progress."""

import json
from pathlib import Path

from accelerate import PartialState
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from blackswan.networks.checkpoints import mark_complete, remove

STATE = "trainer_state.json"


class KeepCheckpoints(TrainerCallback):
    """Mark a checkpoint once all its files are written, then delete all but it and the best.

    With save_total_limit the Trainer would delete in any order, the mark last.
    """

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Write the mark; transformers calls this after the last file of a checkpoint."""
        PartialState().wait_for_everyone()  # each process writes a file of its own
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir))
        saved = folder / f"checkpoint-{state.global_step}"
        mark_complete(saved)
        kept = {saved, *_best(folder, state.best_model_checkpoint)}
        for checkpoint in sorted(folder.glob("checkpoint-*")):
            if checkpoint not in kept:
                remove(checkpoint)


class Progress(TrainerCallback):
    """One bar over all steps, which a log file does not see, and one line per epoch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Open the bar."""
        hidden = None if state.is_world_process_zero else True
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self.name, disable=hidden
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Move the bar."""
        self.bar.update()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Print the losses of the epoch that ends."""
        if state.is_world_process_zero:
            train, validation = (
                next(entry[key] for entry in reversed(state.log_history) if key in entry)
                for key in ("loss", "eval_loss")
            )
            tqdm.write(
                f"epoch {state.epoch:.0f}: train loss {train:.5f}, validation loss {validation:.5f}"
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Close the bar."""
        self.bar.close()


def needed_by(checkpoint: Path) -> set[Path]:
    """Return the best checkpoint so far, which the Trainer reloads in the end."""
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return _best(checkpoint.parent, state["best_model_checkpoint"])


def epochs_if_stopped(checkpoint: Path) -> int | None:
    """Return after how many epochs training had stopped for good; None where it had not.

    A Trainer that resumes forgets that it had stopped early and would train one epoch more.
    """
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    stopped = state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
    return round(state["epoch"]) if stopped else None


def _best(folder: Path, best_model_checkpoint: str | None) -> set[Path]:
    return {folder / Path(best_model_checkpoint).name} if best_model_checkpoint else set()
