"""Verdicts on new images: complete, streamed, resumed."""

from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from conftest import draw_clip, make_model
from PIL import Image

from blackswan.data.files import state_of
from blackswan.data.images import write_png
from blackswan.data.sources.video import Sampling
from blackswan.detectors.interface import Scores
from blackswan.errors import InputError
from blackswan.evaluation.model import Model
from blackswan.reporting import verdicts
from blackswan.reporting.verdicts import (
    Summary,
    list_source,
    open_images,
    write_verdicts,
)

ALL = Sampling(every_n_seconds=0, start_s=0, end_s=None, max_frames=None)
RUN = {"detector": "median_residual", "alpha": "0.2", "source": "parts"}


def images_of(source):
    return open_images(source, list_source(source), ALL)


def write(folder, photos, page=False):
    return write_verdicts(make_model(), images_of(photos), folder, RUN, page=page)


def test_each_image_has_a_verdict(photos, tmp_path):
    assert write(tmp_path / "out", photos) == Summary(10, 2)
    table = pd.read_parquet(tmp_path / "out/verdicts.parquet")
    assert table.path.tolist() == sorted(f"{number % 2}/{number}.png" for number in range(10))
    assert table[table.verdict == "anomalous"].path.tolist() == ["1/3.png", "1/7.png"]
    assert (table[table.verdict == "anomalous"].p_value == 1 / 5).all()
    assert table.threshold.tolist() == [5.0] * 10
    csv = pd.read_csv(tmp_path / "out/verdicts.csv")
    assert csv.path.tolist() == table.path.tolist()
    assert np.allclose(csv.image_score, table.image_score)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "run.json", "verdicts.csv", "verdicts.parquet",
    ]  # fmt: skip


def test_gifs_that_do_not_move_are_scored_as_photos(tmp_path):
    for number in range(2):
        (tmp_path / "gifs").mkdir(exist_ok=True)
        Image.new("L", (16, 16), 100).save(tmp_path / f"gifs/{number}.gif")
    assert write(tmp_path / "out", tmp_path / "gifs") == Summary(2, 0)
    assert pd.read_csv(tmp_path / "out/verdicts.csv").path.tolist() == ["0.gif", "1.gif"]


def test_frames_of_a_clip_have_their_times(tmp_path):
    clip = draw_clip(tmp_path / "clip.avi", frames=10)
    write_verdicts(make_model(), images_of(clip), tmp_path / "out", RUN, page=False)
    table = pd.read_parquet(tmp_path / "out/verdicts.parquet")
    assert table.path.tolist() == [f"clip/{number:06d}" for number in range(10)]
    assert np.allclose(table.time_s, np.arange(10) / 20)


def test_a_killed_run_goes_on_and_scores_nothing_twice(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "PART", 3)
    write(tmp_path / "whole", photos, page=True)
    scored, score = [], verdicts._score

    def killed(model, items, pictures):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append([frame.image for frame, _ in items])
        return score(model, items, pictures)

    monkeypatch.setattr(verdicts, "_score", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", photos, page=True)
    monkeypatch.setattr(verdicts, "_score", lambda *a: scored.append(len(a[1])) or score(*a))
    assert write(tmp_path / "out", photos, page=True) == Summary(10, 2)
    assert scored[2:] == [3, 1]
    for name in ("verdicts.parquet", "verdicts.csv", "gallery.html"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    scored.clear()
    write(tmp_path / "out", photos, page=True)
    assert scored == []


def test_a_source_that_changed_meanwhile_is_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "PART", 3)
    monkeypatch.setattr(verdicts, "_join", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "out", photos)
    (photos / "0/2.png").unlink()
    with pytest.raises(InputError, match=r"has changed since 0/2.png was scored"):
        write(tmp_path / "out", photos)


def test_another_run_or_other_files_in_the_folder_are_refused(photos, tmp_path):
    write(tmp_path / "out", photos)
    with pytest.raises(InputError, match="verdicts of another model, source or setting"):
        write_verdicts(make_model(), [], tmp_path / "out", RUN | {"alpha": "0.1"}, page=False)
    with pytest.raises(InputError, match="verdicts of another model, source or setting"):
        write(tmp_path / "out", photos, page=True)  # there are no overlays to show
    with pytest.raises(InputError, match="holds other files"):
        write(photos, photos)


def test_the_page_shows_what_is_flagged_worst_first(photos, tmp_path):
    write(tmp_path / "out", photos, page=True)
    page = (tmp_path / "out/gallery.html").read_text()
    assert "2 of 10 images of parts flagged" in page
    table = pd.read_parquet(tmp_path / "out/verdicts.parquet")
    worst = table[table.verdict == "anomalous"].sort_values("image_score", ascending=False)
    places = [page.index(f'src="overlays/{path}.png"') for path in worst.path]
    assert places == sorted(places)
    pictures = sorted((tmp_path / "out/overlays").rglob("*.png"))
    assert [path.name for path in pictures] == ["3.png.png", "7.png.png"]


def test_probabilities_are_written_as_such(photos, tmp_path):
    class Sure:
        def score(self, images):
            scores = np.full(len(images), 1 - 2**-20, np.float32)
            maps = np.zeros((len(images), 16, 16), np.float32)
            return Scores(scores, maps, (16, 16), probabilities=True)

    model = make_model()
    facts = model.facts.model_copy(update={"threshold": 0.99999})
    sure = Model(Sure(), facts, [np.linspace(0, 0.1, 4999)])
    write_verdicts(sure, images_of(photos), tmp_path / "out", RUN, page=True)
    page = (tmp_path / "out/gallery.html").read_text()
    assert page.count("score 1 - 9.5e-7, threshold 1 - 1e-5, p 2e-4<") == 10
    write(tmp_path / "distances", photos, page=True)
    assert "threshold 5, p 0.2<" in (tmp_path / "distances/gallery.html").read_text()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "does not exist"),
        (lambda folder: folder.mkdir(), "holds no image"),
        (lambda folder: folder.write_text("x"), "holds no image and is no video"),
    ],
)
def test_what_cannot_be_scored_is_named(tmp_path, make, message):
    make(tmp_path / "source")
    with pytest.raises(InputError, match=message):
        list_source(tmp_path / "source")


def test_images_of_two_sizes_are_scored_as_each_alone(tmp_path):
    rng = np.random.default_rng(0)
    for name, width in {"a": 20, "b": 24, "c": 20}.items():
        image = rng.integers(0, 256, (20, width, 3), dtype=np.uint8)
        for folder in ("parts", f"alone/{name}"):
            write_png(tmp_path / folder / f"{name}.png", image)

    def score(folder):
        out = tmp_path / "out" / folder
        write_verdicts(make_model(None), images_of(tmp_path / folder), out, RUN, page=False)
        return pd.read_parquet(out / "verdicts.parquet").image_score.tolist()

    assert score("parts") == [score(f"alone/{name}")[0] for name in "abc"]


def test_killed_before_or_after_all_its_parts_a_run_goes_on(photos, tmp_path, monkeypatch):
    (tmp_path / "out/.parts").mkdir(parents=True)
    (tmp_path / "out/.run.json.partial").write_text("{")
    with monkeypatch.context() as killed:
        killed.setattr(verdicts.shutil, "rmtree", lambda *args, **options: None)
        write(tmp_path / "out", photos)
    assert (tmp_path / "out/.parts").exists()
    assert write(tmp_path / "out", photos) == Summary(10, 2)
    assert not (tmp_path / "out/.parts").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(photos, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file; name a folder with --out"):
        write(tmp_path / "out", photos)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_source_under_the_same_name_that_changed_has_another_state(photos):
    before = state_of(list_source(photos))
    assert state_of(list_source(photos)) == before
    write_png(photos / "0/2.png", np.zeros((16, 16, 3), np.uint8))
    assert state_of(list_source(photos)) != before


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="HEIC is read with the extra")
def test_what_is_left_out_of_a_folder_of_photos_is_counted(photos, capsys):
    (photos / "notes.heic").touch()
    assert len(list_source(photos)) == 10
    assert "left out 1 .heic" in capsys.readouterr().err


def test_a_share_may_fail_and_is_listed(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "PART", 2)
    for name in ("0/0.png", "0/2.png", "1/3.png"):  # all of the first part
        (photos / name).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0/0.png is empty, corrupt"):
        write(tmp_path / "out", photos)

    def write_most(folder, share):
        return write_verdicts(
            make_model(), images_of(photos), folder, RUN, page=False, max_failed_share=share
        )

    for _ in range(2):  # the second time it skips what it has
        with pytest.raises(InputError, match="more than 2 of 10 images fail, which is what --max"):
            write_most(tmp_path / "out", 0.2)
    assert write_most(tmp_path / "out", 0.3) == Summary(7, 1, 3)
    table = pd.read_csv(tmp_path / "out/quarantine.csv")
    assert table.path.tolist() == ["0/0.png", "0/2.png", "1/3.png"]
    assert "0/0.png" not in pd.read_csv(tmp_path / "out/verdicts.csv").path.tolist()
    assert write_most(tmp_path / "out", 0.3) == Summary(7, 1, 3)


def test_a_part_in_the_middle_that_is_missing_is_scored(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "PART", 3)
    whole = tmp_path / "whole"
    write(whole, photos)
    with monkeypatch.context() as killed:
        killed.setattr(verdicts, "_join", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(tmp_path / "out", photos)
    parts = tmp_path / "out" / verdicts.PARTS
    (parts / "000001.parquet").unlink()
    kept = (parts / "000002.parquet").stat().st_mtime_ns
    score, scored = verdicts._score, []
    monkeypatch.setattr(verdicts, "_score", lambda *a: scored.append(len(a[1])) or score(*a))
    monkeypatch.setattr(verdicts.shutil, "rmtree", lambda *arguments, **options: None)
    write(tmp_path / "out", photos)
    assert scored == [3]
    assert (parts / "000002.parquet").stat().st_mtime_ns == kept
    assert (tmp_path / "out/verdicts.csv").read_bytes() == (whole / "verdicts.csv").read_bytes()
