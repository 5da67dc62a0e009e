"""A model on loopback that answers as a test tells it to, candidates and rows of a table."""

import json
from contextlib import contextmanager
from dataclasses import replace

from servers import serving

from blackswan.proposals.asking import Budget
from blackswan.proposals.choosing import Candidate
from blackswan.proposals.questions import PICTURES, Prompt, Question
from blackswan.proposals.table import Proposal

QUESTION = Question("gpt", Prompt("Look.", "v1-0123456789ab"), ["hole", "scratch"], 100)
BUDGET = Budget(most=1, price_in=2, price_out=8, tokens_per_image=1000)
NORMAL = {"label": "normal", "defect": "none", "reason": "Smooth all over.", "confidence": 0.9}
SCRATCH = {"label": "anomalous", "defect": "scratch", "reason": "A line.", "confidence": 0.75}


def completion(content, *, finish="stop", usage=(900, 50), refusal=None):
    """Return what an endpoint answers; `content` is JSON, or a text as it is."""
    text = content if isinstance(content, str | None) else json.dumps(content)
    message = {"role": "assistant", "content": text, "refusal": refusal}
    body = {
        "id": "1", "object": "chat.completion", "created": 0, "model": "gpt",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }  # fmt: skip
    if usage:
        body["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


@contextmanager
def answering(*answers):
    """Serve the answers in turn, the last one again and again; yield the URL and the requests."""
    requests = []

    def answer(body, headers):
        requests.append((json.loads(body), {key.lower(): headers[key] for key in headers}))
        found = answers[min(len(requests), len(answers)) - 1]
        return found(body) if callable(found) else found

    with serving(answer_post=answer) as url:
        yield f"{url}/v1", requests


def candidate(number, verdict="normal", p_value=0.06, is_certain=False):
    return Candidate(
        image=f"{number}.png", sha256=f"{number:064x}", detector="padim", verdict=verdict,
        p_value=p_value, is_certain=is_certain,
        pictures={name: f"{name} {number}".encode() for name in PICTURES},
    )  # fmt: skip


def row(number, **changes):
    """Return a row of the table."""
    made = Proposal(
        image=f"{number}.png", sha256=f"{number:064x}", status="proposed", label="normal",
        defect="none", confidence=0.9, reason="Smooth, all over.", detector="padim",
        verdict="normal", p_value=0.06, disagrees=False, model="gpt", prompt="v1-0123456789ab",
        tokens_in=900, tokens_out=50, cost=0.0022,
    )  # fmt: skip
    return replace(made, **changes)
