"""Rows are kept one by one, within the budget; a kill loses none and sends no image twice."""

import json
import os
import signal
from collections import Counter
from dataclasses import replace

import pytest
from drawn_proposals import BUDGET, NORMAL, QUESTION, SCRATCH, candidate
from kills import run_forked

from blackswan.errors import InputError
from blackswan.proposals.asking import KILLED, OFF, ask_all, dry_run
from blackswan.proposals.questions import Prompt, Reply, read_answer
from blackswan.proposals.table import asked_file, opened, read_proposals


class Asked(list):
    """Answers and remembers of which images it was asked."""

    def __init__(self, *answers, usage=(900, 50)):
        super().__init__()
        self.answers, self.usage = answers, usage

    def __call__(self, request):
        self.append(request["messages"][1]["content"][2]["image_url"]["url"])
        answer = self.answers[min(len(self), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return Reply(json.dumps(answer), "", *self.usage)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data/proposals.csv"


def test_an_answer_becomes_a_row(path):
    ask = Asked(NORMAL, SCRATCH)
    outcome = ask_all(ask, QUESTION, BUDGET, [candidate(1), candidate(2)], path)
    assert outcome.counts == Counter(proposed=2)
    assert outcome.cost == pytest.approx(2 * (900 * 2 + 50 * 8) / 1e6)
    first, second = read_proposals(path)
    assert (first.image, first.label, first.defect, first.confidence) == (
        "1.png", "normal", "none", 0.9,
    )  # fmt: skip
    assert (second.status, second.label, second.disagrees) == ("proposed", "anomalous", True)
    assert (second.model, second.prompt, second.tokens_in) == ("gpt", "v1-0123456789ab", 900)
    assert not asked_file(path).exists()


@pytest.mark.parametrize(
    ("verdict", "is_certain", "answer", "status"),
    [
        ("anomalous", True, NORMAL, "disputed"),
        ("normal", True, SCRATCH, "disputed"),
        ("anomalous", False, NORMAL, "proposed"),
        ("anomalous", True, SCRATCH, "proposed"),
    ],
)
def test_who_contradicts_a_detector_that_is_certain_is_disputed(
    path, verdict, is_certain, answer, status
):
    ask_all(Asked(answer), QUESTION, BUDGET, [candidate(1, verdict, 0.01, is_certain)], path)
    [row] = read_proposals(path)
    assert (row.status, row.disagrees) == (status, row.label != verdict)


@pytest.mark.parametrize(
    "change",
    [
        {"label": "good"}, {"defect": "dent"}, {"defect": "hole"}, {"confidence": 1.5},
        {"confidence": "0.9"}, {"reason": " "}, {"note": "more"}, {"label": None},
    ],
)  # fmt: skip
def test_an_answer_off_the_schema_is_an_abstention(path, change):
    ask_all(Asked(NORMAL | change), QUESTION, BUDGET, [candidate(1)], path)
    [row] = read_proposals(path)
    assert (row.status, row.label, row.reason, row.tokens_out) == ("abstained", "", OFF, 50)


def test_half_a_json_is_off_the_schema():
    assert read_answer('{"label": "normal", "def', []) is None
    assert read_answer(json.dumps(NORMAL | {"reason": "=HYPERLINK()\n"}), []).reason == (
        "'=HYPERLINK()"
    )


def test_the_budget_ends_a_run_before_the_call(path):
    most = BUDGET.most_of(QUESTION)
    spent = BUDGET.cost(900, 50)
    ask, many = Asked(NORMAL), [candidate(number) for number in range(9)]
    tight = replace(BUDGET, most=2 * spent + most)
    with pytest.raises(InputError, match=r"^the budget of .* ends here: .* is spent, and 3\.png"):
        ask_all(ask, QUESTION, tight, many, path)
    assert len(ask) == len(read_proposals(path)) == 3
    assert ask_all(ask, QUESTION, BUDGET, many, path).counts == Counter(proposed=6)
    assert len(set(ask)) == len(ask) == 9
    none = replace(BUDGET, most=0)
    with pytest.raises(InputError, match="the budget of 0 ends here: 0 is spent"):
        ask_all(ask, QUESTION, none, many, path.with_name("other.csv"))
    assert len(ask) == 9


def test_more_tokens_than_reckoned_end_a_run(path):
    ask = Asked(NORMAL, usage=(90_000, 50))
    with pytest.raises(InputError, match=r"1\.png took 90000 tokens .* raise --tokens-per-image"):
        ask_all(ask, QUESTION, BUDGET, [candidate(1), candidate(2)], path)
    assert len(read_proposals(path)) == len(ask) == 1


def test_unknown_tokens_cost_what_they_may(path):
    ask_all(Asked(NORMAL, usage=(None, None)), QUESTION, BUDGET, [candidate(1)], path)
    [row] = read_proposals(path)
    assert (row.tokens_in, row.cost) == (None, BUDGET.most_of(QUESTION))


def test_a_failure_keeps_what_was_answered_and_goes_on(path):
    ask = Asked(NORMAL, InputError("api.openai.com answers with status 500"), NORMAL)
    many = [candidate(1), candidate(2), candidate(3)]
    with pytest.raises(InputError, match="status 500"):
        ask_all(ask, QUESTION, BUDGET, many, path)
    assert [row.image for row in read_proposals(path)] == ["1.png"]
    outcome = ask_all(ask, QUESTION, BUDGET, many, path)
    assert (outcome.counts, outcome.before) == (Counter(proposed=2), 1)
    assert [row.image for row in read_proposals(path)] == ["1.png", "2.png", "3.png"]


def test_another_model_or_prompt_asks_again(path):
    ask = Asked(NORMAL)
    for question in (
        QUESTION,
        replace(QUESTION, model="other"),
        replace(QUESTION, prompt=Prompt("Look well.", "v2-0123456789ab")),
        QUESTION,
    ):
        ask_all(ask, question, BUDGET, [candidate(1)], path)
    assert len(ask) == 3
    assert [(row.model, row.prompt[:2]) for row in read_proposals(path)] == [
        ("gpt", "v1"), ("other", "v1"), ("gpt", "v2"),
    ]  # fmt: skip


def test_a_kill_while_an_image_is_asked_sends_it_once(path, tmp_path, capfd):
    log = tmp_path / "sent"
    many = [candidate(number) for number in range(4)]

    def ask(request, killed_at=None):
        with log.open("a") as file:
            file.write(request["messages"][1]["content"][2]["image_url"]["url"] + "\n")
        if killed_at is not None and len(log.read_text().splitlines()) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return Reply(json.dumps(NORMAL), "", 900, 50)

    code = run_forked(lambda: ask_all(lambda r: ask(r, 2), QUESTION, BUDGET, many, path))
    assert code == -signal.SIGKILL
    assert len(read_proposals(path)) == 1
    assert asked_file(path).exists()
    outcome = ask_all(ask, QUESTION, BUDGET, many, path)
    assert (
        "1.png was sent when the last run ended, and counts as abstained" in capfd.readouterr().err
    )
    assert (outcome.counts, outcome.before) == (Counter(proposed=2), 2)
    sent = log.read_text().splitlines()
    assert len(sent) == len(set(sent)) == 4
    rows = read_proposals(path)
    assert [row.status for row in rows] == ["proposed", "abstained", "proposed", "proposed"]
    assert (rows[1].reason, rows[1].cost) == (KILLED, BUDGET.most_of(QUESTION))


def test_half_a_row_that_a_kill_left_is_the_image_that_was_asked(path):
    ask_all(Asked(NORMAL), QUESTION, BUDGET, [candidate(1), candidate(2)], path)
    head, first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(head + first + second[:40])
    asked_file(path).write_bytes(second.replace(b"proposed,normal,none,0.9", b"abstained,,,"))
    ask = Asked(NORMAL)
    outcome = ask_all(ask, QUESTION, BUDGET, [candidate(1), candidate(2)], path)
    assert (outcome.before, ask) == (2, [])
    assert [row.status for row in read_proposals(path)] == ["proposed", "abstained"]


def test_a_row_that_was_whole_when_it_was_killed_counts(path):
    ask_all(Asked(NORMAL), QUESTION, BUDGET, [candidate(1)], path)
    before = path.read_bytes()
    asked_file(path).write_bytes(before.splitlines(keepends=True)[1])
    with opened(path) as table:
        assert len(table.rows) == 1
    assert path.read_bytes() == before
    assert not asked_file(path).exists()


def test_a_dry_run_writes_requests_and_pictures(path, tmp_path):
    ask_all(Asked(NORMAL), QUESTION, BUDGET, [candidate(1)], path)
    before = path.read_bytes()
    count = dry_run(QUESTION, [candidate(1), candidate(2)], path, tmp_path / "dry")
    assert count == 1
    files = sorted(file.name for file in (tmp_path / "dry/0001").iterdir())
    assert files == ["crop.png", "heatmap.png", "image.png", "image.txt", "request.json"]
    request = json.loads((tmp_path / "dry/0001/request.json").read_text())
    assert request["messages"][1]["content"][2]["image_url"]["url"] == "crop.png"
    assert (tmp_path / "dry/0001/crop.png").read_bytes() == b"crop 2"
    assert path.read_bytes() == before
