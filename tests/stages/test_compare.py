"""The compare stage on drawn score files: what it writes, and the boundary cases."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from blackswan.data.dataset import Row, write_shards
from blackswan.data.images import encode_png
from blackswan.detectors.interface import Scores
from blackswan.errors import InputError
from blackswan.evaluation import metrics
from blackswan.evaluation.pixels import PixelMetrics
from blackswan.evaluation.score_maps import open_writer, to_table
from blackswan.reporting import pictures
from blackswan.seeds import generator
from stages import compare

SIZE = 24
SHOWN = ["split", "synthesize_anomalies", "build_dataset", "train_vit", "fit_baseline"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_params(names, fitted=(), **changes):
    references = dict.fromkeys(names, "")
    block = {"references": references, "gallery_images": 4, "sample_images": 2} | changes
    params = dict.fromkeys(SHOWN, {}) | {
        "compare": block,
        "detectors": {name: {"backbone": "any"} for name in fitted},
        "source": {"path": "data/raw/<clip>.mp4"},
        "evaluate": {"alpha": 0.05, "calibration": "auto"},
        "fit_detector": {"seed": 3},
        "extract_frames": {"crop": [1, 2], "video": {"end_s": None}},
    }
    compare.Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def write_dataset(normal=3, defects=("scratch",) * 3, masks=True):
    """Write a test shard: dark images; an anomalous one has a bright square, which is its mask."""
    rows = []
    for number, defect in enumerate([""] * normal + list(defects)):
        image, mask = np.full((SIZE, SIZE, 3), 40 + number, np.uint8), np.zeros((SIZE, SIZE), bool)
        if defect:
            mask[4:10, 5 : 9 + number % 3] = True
            image[mask] = 220
        drawn = encode_png(mask) if defect and masks else None
        rows.append(
            Row(
                f"images/{defect or 'normal'}-{number}.png",
                encode_png(image),
                drawn,
                int(bool(defect)),
                defect,
                False,
                False,
                f"group-{number}",
                None,
            )
        )
    compare.DATASET.mkdir(parents=True, exist_ok=True)
    write_shards(compare.DATASET, "test", iter(rows), 2000)
    return rows


def write_detector(name, rows, quality=1.0, unseen=(), probabilities=False, masks=True):
    """Write what evaluate_detector would; `quality` 0 scores at random."""
    rng = generator(0, name)
    labels = np.array([row.label for row in rows])
    values = rng.random(len(rows)) * 0.3 + quality * labels * 0.6
    threshold = 0.31
    facts = pd.DataFrame(
        {
            "path": [row.path for row in rows],
            "label": labels,
            "defect": [row.defect for row in rows],
            "table": [row.defect if row.defect in unseen else "main" for row in rows],
            "image_score": values,
            "flagged": values > threshold,
        }
    )
    folder, curves = compare.SCORES / name, compare.CURVES / name
    for each in (folder, curves, compare.METRICS):
        each.mkdir(parents=True, exist_ok=True)
    facts.to_parquet(folder / "scores.parquet", index=False)
    patch_scores = values.astype(np.float32)[:, None, None]  # one patch an image
    with open_writer(folder / "maps.parquet") as writer:
        writer.write_table(to_table(facts.path, Scores(values, patch_scores, (SIZE, SIZE))))

    def measure(chosen):
        found = metrics.image_metrics(
            chosen.label.to_numpy(),
            chosen.image_score.to_numpy(),
            threshold,
            chosen.path.tolist(),
        )
        if masks and len(set(chosen.label)) == 2:
            found |= {"pixel_auroc": 0.9, "pixel_aupro": 0.8}
        if probabilities:
            found["expected_calibration_error"] = 0.1
        return found

    main = facts[facts.table == "main"]
    labels, scores = main.label.to_numpy(), main.image_score.to_numpy()
    metrics.roc_points(labels, scores).to_csv(curves / "roc.csv", index=False)
    points = metrics.precision_recall_points(labels, scores)
    points.to_csv(curves / "precision_recall.csv", index=False)
    PixelMetrics().pro_points().to_csv(curves / "pro.csv", index=False)
    if probabilities:
        metrics.reliability_curve(labels, scores).to_csv(curves / "reliability.csv", index=False)
    if name == "vit":
        losses = "epoch,train,validation\n1,0.5,0.6\n2,0.1,0.2\n"
        (compare.SCORES / name / pictures.LOSSES).write_text(losses)
    result = measure(main) | {
        "unseen": {
            table: measure(facts[(facts.table == table) | (facts.label == 0)]) for table in unseen
        },
        "defects": metrics.defect_table(main.defect, labels, scores, threshold),
        "heatmap": {"threshold": 0.35, "top": 0.8},
        "threshold_from": "19 normal images of validation, alpha 0.05",
        "verdict": "cannot say",
        "threshold_verdict": {"advice": "add <more>", "flags": 0, "images": 3},
    }
    (compare.METRICS / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    return result


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def drawn():
    return sorted(
        path.relative_to(compare.PICTURES).as_posix() for path in compare.PICTURES.rglob("*.png")
    )


def test_writes_every_output_the_same_twice(project, capsys):
    rows = write_dataset(defects=("scratch", "scratch", "blur", "blur"))
    write_detector("vit", rows, unseen=("blur",), probabilities=True)
    write_detector("median_residual", rows, quality=0, unseen=("blur",))
    write_params(["median_residual"], fitted=["vit"])
    compare.main()
    assert capsys.readouterr().out == "2 compared, vit is first; see metrics/report.html\n"

    of_each = ["confusion.png", "gallery.png", "scores.png", "unseen.png"]
    assert drawn() == sorted(
        [
            "precision_recall.png",
            "roc.png",
            "samples.png",
            "vit/losses.png",
            "vit/reliability.png",
            *[f"{name}/{picture}" for name in ("vit", "median_residual") for picture in of_each],
        ]
    )
    summary = json.loads(compare.SUMMARY.read_text())
    assert sorted(summary) == ["median_residual", "vit"]
    assert summary["vit"]["image_auroc"] == 1
    assert summary["vit"]["expected_calibration_error"] == 0.1
    assert not {"defects", "heatmap", "image_ap_low"} & set(summary["vit"])
    assert "expected_calibration_error" not in summary["median_residual"]
    leaderboard = pd.read_csv(compare.LEADERBOARD, keep_default_na=False)
    assert leaderboard[["table", "rank", "detector"]].to_numpy().tolist() == [
        ["main", 1, "vit"],
        ["main", 2, "median_residual"],
        ["blur", 1, "vit"],
        ["blur", 2, "median_residual"],
    ]
    assert set(leaderboard.verdict) == {"cannot say"}  # of unseen kinds too: one threshold
    assert summary["vit"]["verdict"] == "cannot say"
    assert leaderboard.against_median_residual[0] == "ahead in image_auroc"

    before = digests(project)
    compare.main()
    assert digests(project) == before


def test_report_stands_alone_and_holds_every_picture(project):
    rows = write_dataset(defects=("<script>", "blur"))
    write_detector("padim", rows, quality=-1, unseen=("blur",))
    write_detector("median_residual", rows, unseen=("blur",))
    write_params(["padim", "median_residual"])
    compare.main()
    page = compare.REPORT.read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,") == len(drawn())
    assert page.count("<figcaption>") == len(drawn())
    assert "http" not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "No better in image AUROC than median_residual, which learns nothing: 1 of 1" in page
    assert page.count('class="warning"') == 1
    assert "<b>cannot say</b>: add &lt;more&gt;" in page
    assert page.count('<th scope="col">groups</th>') == 1  # one table ranks, unseen kinds in it
    assert "unseen kinds, image AUROC</th>" in page
    assert "<td>1</td>" in page  # the one anomalous image
    assert "image threshold</span><b>0.31</b>" in page
    assert "pixel threshold</span><b>0.35</b>" in page
    assert "19 normal images of validation, alpha 0.05" in page
    assert str(project) not in page


def test_report_shows_source_settings_and_data_and_nothing_of_when_it_was_made(project):
    rows = write_dataset()
    write_detector("padim", rows)
    write_params([], fitted=["padim"])
    compare.main()
    page = compare.REPORT.read_text(encoding="utf-8")
    for name, value in {
        "source.path": "data/raw/&lt;clip&gt;.mp4",
        "evaluate.alpha": "0.05",
        "fit_detector.seed": "3",
        "extract_frames.crop": "1, 2",
        "extract_frames.video.end_s": "",
        "detectors.padim.backbone": "any",
    }.items():
        assert f"<li>{name} <b>{value}</b></li>" in page
    shard = next((compare.DATASET / "test").iterdir())
    of_data = hashlib.sha256(hashlib.sha256(shard.read_bytes()).digest()).hexdigest()
    assert f"<b>{of_data[:12]}</b>" in page
    assert 'class="warning"' not in page


def test_report_shows_what_was_measured_of_this_fit_when_the_camera_drifts(project):
    rows = write_dataset()
    results = {name: write_detector(name, rows) for name in ("padim", "vit")}
    write_params(["padim", "vit"])
    rates = {"image_auroc": 0.9, "false_positive_rate": 0.1, "recall": None}
    drifts = {"gamma": rates | {"breaks_at": 2.0, "ramp": None}}
    of_data = compare.fingerprint(compare.Split(compare.DATASET, "test").paths)
    found = {
        "no drift": rates, "kinds": {"light": rates}, "drifts": drifts, "test_images": of_data,
    }  # fmt: skip
    detectors = {
        "padim": found | {"threshold": results["padim"]["threshold"]},
        "vit": found | {"threshold": 7},  # of a fit before
        "gone": found | {"threshold": 7},
    }

    def page_of(detectors):
        summary = {"severity": 3, "light": ["gamma"], "detectors": detectors}
        compare.ROBUSTNESS.write_text(json.dumps(summary))
        compare.main()
        return compare.REPORT.read_text(encoding="utf-8")

    page = page_of(detectors)
    assert "When the light changes, choose padim, of 1 measured" in page
    assert '<th scope="row">gamma</th><td>0.90 / –, breaks at 2</td></tr>' in page
    detectors["padim"]["test_images"] = "0" * 64
    assert "When the camera drifts" not in page_of(detectors)


def test_report_says_where_it_stands_on_test_scores(project):
    write_detector("padim", write_dataset())
    write_params(["padim"])
    compare.main()
    page = " ".join(compare.REPORT.read_text(encoding="utf-8").split())
    assert "The order uses their scores: confirm a choice made by it" in page
    assert "picked by their test scores" in page


@pytest.mark.slow
def test_report_of_many_detectors_stays_light(project, monkeypatch):
    rows = write_dataset(normal=6, defects=("scratch",) * 6)
    names = [f"detector_{number:02}" for number in range(8)]
    for name in names:
        write_detector(name, rows)
    write_params(names)

    def draw_noise(*of, **_):
        figure = Figure(figsize=(11, 11), dpi=100)
        noise = generator(0, str(of[:1])).integers(0, 255, (1100, 1100, 3), dtype=np.uint8)
        figure.figimage(noise)
        return figure

    monkeypatch.setattr(pictures.sheets, "gallery", draw_noise)  # the most that a picture can take
    compare.main()
    galleries = [*compare.PICTURES.rglob("gallery.png")]
    assert len(galleries) == 8
    assert sum(picture.stat().st_size for picture in galleries) > 20_000_000
    assert compare.REPORT.stat().st_size < 5_000_000
    assert compare.REPORT.read_text().count("data:image/webp;base64,") == len(drawn())


@pytest.mark.parametrize(
    ("normal", "defects", "masks"),
    [
        (3, (), True),
        (0, ("scratch",) * 3, True),
        (1, (), True),
        (1, ("scratch",), True),
        (3, ("crack", "hole"), False),
    ],
)
def test_one_class_one_image_no_masks(project, normal, defects, masks):
    rows = write_dataset(normal, defects, masks)
    write_detector("padim", rows, masks=masks)
    write_params(["padim"])
    compare.main()
    both = bool(normal and defects)
    assert ("roc.png" in drawn()) == both
    assert "padim/gallery.png" in drawn()
    summary = json.loads(compare.SUMMARY.read_text())["padim"]
    assert ("image_auroc" in summary) == both
    assert ("pixel_auroc" in summary) == (both and masks)
    assert ("pixel AUROC</th>" in compare.REPORT.read_text()) == (both and masks)


@pytest.mark.slow
def test_many_detectors_with_long_names(project):
    rows = write_dataset()
    names = [f"detector_{number:02}_{'long_' * 12}name" for number in range(13)]
    for name in names:
        write_detector(name, rows)
    write_params(names, gallery_images=1)
    compare.main()
    page = compare.REPORT.read_text()
    assert page.count("<article") == 14
    assert len(pd.read_csv(compare.LEADERBOARD)) == 13


def test_a_detector_taken_off_the_table_leaves_no_pictures(project):
    rows = write_dataset()
    for name in ("a", "b"):
        write_detector(name, rows)
    write_params(["a", "b"])
    compare.main()
    write_params(["a"])
    compare.main()
    assert not [name for name in drawn() if name.startswith("b/")]


def test_gallery_reads_image_map_and_verdict_of_its_rows(project):
    rows = write_dataset()
    write_detector("a", rows)
    test = compare.Split(compare.DATASET, "test")
    scores = pictures.read_scores(compare.SCORES / "a", test)
    chosen = scores[scores.path == "images/scratch-4.png"]
    [example] = pictures.read_examples(chosen, test, compare.SCORES / "a" / pictures.MAPS)
    assert (example.anomaly_map == np.float32(scores.image_score[4])).all()
    assert example.mask[4:10, 5:10].all()
    assert example.outcome == "found"
    assert example.caption.startswith("scratch-4  scratch  0.")


def test_bad_input_ends_in_one_sentence_and_keeps_what_was_there(project):
    rows = write_dataset()
    write_detector("a", rows)
    write_params(["a"])
    compare.main()
    before = digests(compare.Path("metrics"))

    write_params(["a", "padim"])
    with pytest.raises(InputError, match=r"padim\.json is missing; run `dvc repro compare`"):
        compare.main()
    write_params(["a"], fitted=["a"])
    with pytest.raises(InputError, match=r"a stands in detectors and in compare\.references"):
        compare.main()
    write_params([])
    with pytest.raises(InputError, match=r"detectors and compare\.references are empty"):
        compare.main()
    write_params(["a"])
    write_dataset(normal=4)
    with pytest.raises(InputError, match="scores of other images than data/dataset"):
        compare.main()
    assert digests(compare.Path("metrics")) == before
