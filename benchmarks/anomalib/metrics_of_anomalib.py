"""Measure drawn maps with anomalib's AUROC and AUPRO; run by compare.py in anomalib's venv."""

import json
import sys
from pathlib import Path

import torch
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.auroc import _AUROC
from drawn_maps import draw

SEEDS = range(6)


def main() -> None:
    """Write seed, AUROC and AUPRO of each case to the file that is named."""
    rows = []
    for seed in SEEDS:
        maps, masks = (torch.from_numpy(array) for array in draw(seed))
        auroc, aupro = _AUROC(), _AUPRO(fpr_limit=0.3)
        # Ranks in (0, 1): torchmetrics takes a sigmoid of any other range, which merges values.
        ranks = maps.flatten().unique(return_inverse=True)[1].double().add(1)
        auroc.update(ranks / (ranks.max() + 1), masks.flatten().int())
        aupro.update(maps, masks.int())
        rows.append(
            {"seed": seed, "auroc": auroc.compute().item(), "aupro": aupro.compute().item()}
        )
    Path(sys.argv[1]).write_text(json.dumps({"anomalib": "2.7.0", "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
