"""Exact nearest neighbours in a memory bank, by blocked matrix products."""

import torch
from torch import Tensor

from blackswan.networks.devices import in_parts, rows_at_once

QUERIES = 1024  # rows of one product; with BANK columns its result stays near the cache
BANK = 8192
SPARE = 4  # candidates beyond k: float32 noise swaps neighbours that are nearly as near


def nearest(queries: Tensor, bank: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Find the k nearest bank rows of every query row.

    queries (N, D) and bank (M, D), float32, k <= M; all is done where the queries are. Returns
    Euclidean distances (N, k), ascending, and indices (N, k). Memory beside the result is bounded
    by the block sizes. |q|^2 + |b|^2 - 2 q.b only proposes candidates; their distances are computed
    again as |q - b|, because the difference of large squares loses the digits of small distances,
    and loses others in batches of another size.
    """
    bank = bank.to(queries.device)
    norms = bank.square().sum(1)
    rows = rows_at_once(queries.device, 4 * (BANK + 2 * bank.shape[1]), QUERIES)
    parts = [_nearest(block, bank, norms, k) for block in in_parts(queries, rows)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _nearest(queries: Tensor, bank: Tensor, norms: Tensor, k: int) -> tuple[Tensor, Tensor]:
    size = min(k + SPARE, len(bank))
    count = queries.shape[0]  # len() would fix the number of a graph
    scores = queries.new_empty((count, 0))
    found = torch.empty((count, 0), dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), BANK):
        part = slice(start, start + BANK)
        product = torch.addmm(norms[part], queries, bank[part].T, alpha=-2)  # |b|^2 - 2 q.b
        best = torch.topk(product, min(size, product.shape[1]), largest=False)
        merged = torch.cat([scores, best.values], 1)
        scores, order = torch.topk(merged, min(size, merged.shape[1]), largest=False)
        found = torch.cat([found, best.indices + start], 1).gather(1, order)
    found = found.sort(1).values  # of equal distances the smaller index comes first
    distances = torch.stack(
        [(queries - bank[column]).square().sum(1) for column in found.T], 1
    ).sqrt()
    if torch.compiler.is_exporting():  # ONNX has no stable sort, but its TopK is stable
        distances, order = distances.topk(k, largest=False)
    else:
        distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], found.gather(1, order)[:, :k]
