"""Ask a model about one image after the other, within a budget, or show what would be asked."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blackswan.errors import InputError
from blackswan.outputs import replace_folder
from blackswan.proposals.choosing import Candidate
from blackswan.proposals.questions import (
    Question,
    Reply,
    build,
    data_uris,
    most_tokens_in,
    read_answer,
)
from blackswan.proposals.table import Proposal, opened, read_proposals

MILLION = 1_000_000
DECIMALS = 9  # of a cost
KILLED, OFF = "the run ended while it was asked", "the answer was off the schema"

Ask = Callable[[Mapping[str, Any]], Reply]


@dataclass(frozen=True)
class Budget:
    """What may be spent on all rows of the table, in the currency of the prices."""

    most: float
    price_in: float  # of a million tokens
    price_out: float
    tokens_per_image: int  # at most

    def __post_init__(self) -> None:
        """Raise InputError where a number is none, for no cost would be above it."""
        if not all(map(math.isfinite, (self.most, self.price_in, self.price_out))):
            raise InputError("--budget, --price-in and --price-out take numbers; write 0 for none")

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Return what tokens cost."""
        cost = (tokens_in * self.price_in + tokens_out * self.price_out) / MILLION
        return round(cost, DECIMALS)

    def most_of(self, question: Question) -> float:
        """Return what a request costs at most."""
        return self.cost(most_tokens_in(question, self.tokens_per_image), question.max_tokens)


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    counts: Counter[str]  # new rows by their status
    before: int  # candidates that had a row
    cost: float  # of all rows of the table


def ask_all(
    ask: Ask, question: Question, budget: Budget, candidates: Iterable[Candidate], path: Path
) -> Outcome:
    """Ask about each candidate that the table `path` has no row of, and append its row.

    Raises InputError before the request that might exceed the budget, and after one that cost more
    than was reckoned; the rows stay.
    """
    counts, before, most = Counter[str](), 0, budget.most_of(question)
    with opened(path) as table:
        for candidate in candidates:
            if table.holds(candidate.sha256, question.model, question.prompt.version):
                before += 1
                continue
            if table.cost + most > budget.most:
                raise InputError(
                    f"the budget of {budget.most:g} ends here: {table.cost:.6g} is spent, and "
                    f"{candidate.image} may cost {most:.6g}; with a higher --budget the same "
                    "command goes on"
                )
            table.ask(_abstained(candidate, question, KILLED, most))
            try:
                reply = ask(build(question, data_uris(candidate.pictures)))
            except InputError:
                table.refused()
                raise
            row = judged(candidate, question, budget, reply)
            table.add(row)
            counts[row.status] += 1
            if row.cost > most:
                raise InputError(
                    f"{candidate.image} took {row.tokens_in} tokens and {row.tokens_out} of the "
                    "answer, more than was reckoned; raise --tokens-per-image, or --max-tokens if "
                    "the model does not keep to it, and the same command goes on"
                )
        return Outcome(counts, before, table.cost)


def judged(candidate: Candidate, question: Question, budget: Budget, reply: Reply) -> Proposal:
    """Return the row of a reply: a proposal, a disputed one, or an abstention.

    Words in a picture may have told the model what to say: where it contradicts a detector that is
    certain, its answer is disputed.
    """
    if reply.tokens_in is None or reply.tokens_out is None:
        cost = budget.most_of(question)
    else:
        cost = budget.cost(reply.tokens_in, reply.tokens_out)
    answer = None if reply.why else read_answer(reply.content, question.defects)
    row = replace(
        _abstained(candidate, question, reply.why or OFF, cost),
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
    )
    if answer is None:
        return row
    disagrees = answer.label != candidate.verdict
    return replace(
        row,
        status="disputed" if disagrees and candidate.is_certain else "proposed",
        label=answer.label,
        defect=answer.defect,
        confidence=answer.confidence,
        reason=answer.reason,
        disagrees=disagrees,
    )


def dry_run(question: Question, candidates: Iterable[Candidate], path: Path, folder: Path) -> int:
    """Write what would be asked into a folder; return how many requests.

    Each has a folder of its own with its pictures, and request.json, which names their files.
    Raises InputError where the folder holds something else.
    """
    if folder.is_dir() and any(not re.fullmatch(r"\d{4,}", item.name) for item in folder.iterdir()):
        raise InputError(f"{folder} holds other files; name another folder with --dry-run")
    asked = {(row.sha256, row.model, row.prompt) for row in read_proposals(path)}
    count = 0
    with replace_folder(folder) as partial:
        for candidate in candidates:
            if (candidate.sha256, question.model, question.prompt.version) in asked:
                continue
            count += 1
            own = partial / f"{count:04d}"
            own.mkdir()
            for name, content in candidate.pictures.items():
                (own / f"{name}.png").write_bytes(content)
            request = build(question, {name: f"{name}.png" for name in candidate.pictures})
            text = json.dumps(request, indent=2, ensure_ascii=False)
            (own / "request.json").write_text(f"{text}\n", encoding="utf-8")
            (own / "image.txt").write_text(f"{candidate.image}\n", encoding="utf-8")
    return count


def _abstained(candidate: Candidate, question: Question, why: str, cost: float) -> Proposal:
    return Proposal(
        image=candidate.image,
        sha256=candidate.sha256,
        status="abstained",
        label="",
        defect="",
        confidence=None,
        reason=why,
        detector=candidate.detector,
        verdict=candidate.verdict,
        p_value=candidate.p_value,
        disagrees=False,
        model=question.model,
        prompt=question.prompt.version,
        tokens_in=None,
        tokens_out=None,
        cost=cost,
    )
