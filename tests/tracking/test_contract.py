"""What a served model answers, and how it refuses; without MLflow, which only hands it on."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
from conftest import make_model
from PIL import Image

from blackswan.data.images import encode_png, read_image
from blackswan.detectors.interface import Scores
from blackswan.errors import InputError
from blackswan.evaluation.model import Model
from blackswan.tracking.contract import IMAGES, MAX_ROWS, OUTPUTS, answer, regions


def encoded(content):
    return base64.b64encode(content).decode()


def rows_of(paths):
    return pd.DataFrame({"image": [encoded(path.read_bytes()) for path in paths]})


def test_answers_are_those_of_the_model(photos):
    paths = sorted(photos.rglob("*.png"))
    model = make_model()
    found = answer(model, rows_of(paths))
    own = model.score([read_image(path) for path in paths])
    assert found.columns.tolist() == list(OUTPUTS)
    assert found.image_score.tolist() == own.image_scores.tolist()
    assert found.p_value.tolist() == own.p_values.tolist()
    assert found.threshold.tolist() == [5.0] * 10
    assert found[found.verdict == "anomalous"].index.tolist() == [6, 8]
    unasked = ["logit_normal", "logit_anomalous", "anomaly_score", "heatmap", "regions"]
    assert found[unasked].isna().all().all()
    assert (found.height == 16).all()
    assert (found.width == 16).all()


def test_logits_come_with_the_probability_they_are_of(photos):
    class Classifier:
        def score(self, images):
            logits = np.array([[1.0, 3.0]] * len(images), np.float32)
            probabilities = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
            patches = np.zeros((len(images), 4, 4), np.float32)
            return Scores(probabilities, patches, (16, 16), probabilities=True, logits=logits)

    model = make_model()
    classifier = Model(Classifier(), model.facts, model.normal_scores)
    (line,) = answer(classifier, rows_of(sorted(photos.rglob("*.png"))[:1])).to_dict("records")
    assert (line["logit_normal"], line["logit_anomalous"]) == (1.0, 3.0)
    assert line["anomaly_score"] == line["image_score"] == pytest.approx(1 / (1 + np.exp(-2)))


def test_a_heatmap_and_regions_come_on_request(photos):
    flagged = photos / "1/3.png"
    (line,) = answer(make_model(), rows_of([flagged]), {"heatmap": True, "regions": 2}).to_dict(
        "records"
    )
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(line["heatmap"]))))
    assert picture.shape == (16, 16, 3)
    assert (picture != read_image(flagged)).any()
    assert 1 <= len(line["regions"]) <= 2
    assert line["regions"][0]["peak"] == pytest.approx(line["image_score"])


def test_regions_are_connected_and_the_worst_comes_first():
    anomaly_map = np.zeros((8, 10), np.float32)
    anomaly_map[1:3, 1:4] = 2
    anomaly_map[5:8, 6] = 3
    anomaly_map[7, 0] = 1  # not above the threshold
    assert regions(anomaly_map, 1, 5) == [
        {"left": 6, "top": 5, "width": 1, "height": 3, "peak": 3.0},
        {"left": 1, "top": 1, "width": 3, "height": 2, "peak": 2.0},
    ]
    assert regions(anomaly_map, 1, 1) == regions(anomaly_map, 1, 5)[:1]


def test_paths_are_read_where_the_server_may(photos, monkeypatch):
    path = photos / "1/3.png"
    rows = pd.DataFrame({"path": [str(path)]})
    with pytest.raises(InputError, match="path of row 0 names no file of /Volumes; send the image"):
        answer(make_model(), rows)
    monkeypatch.setenv(IMAGES, str(photos))
    by_path, by_bytes = answer(make_model(), rows), answer(make_model(), rows_of([path]))
    pd.testing.assert_frame_equal(by_path, by_bytes)
    outside = pd.DataFrame({"path": [f"{photos}/../params.yaml"]})
    with pytest.raises(InputError, match="path of row 0 names no file of"):
        answer(make_model(), outside)
    (photos / "link.png").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="path of row 0 names no file of"):
        answer(make_model(), pd.DataFrame({"path": [str(photos / "link.png")]}))
    with pytest.raises(InputError, match=r"row 0, .*none\.png, does not exist"):
        answer(make_model(), pd.DataFrame({"path": [str(photos / "none.png")]}))


def bomb():
    """A PNG of a few kilobytes that unfolds to 100 megapixels."""
    content = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(content, "png")
    return encoded(content.getvalue())


GOOD = encoded(encode_png(np.zeros((16, 16, 3), np.uint8)))


@pytest.mark.parametrize(
    ("rows", "params", "said"),
    [
        ([], {}, r"the request holds no image; send rows such as"),
        ([{"other": 1}], {}, r"the request holds no image; send rows such as"),
        ([{"image": GOOD}] * (MAX_ROWS + 1), {}, r"the request has 257 rows, the limit is 256"),
        ([{"image": GOOD}, {"image": "%%%"}], {}, r"image of row 1 is not base64"),
        ([{"image": 5}], {}, r"image of row 0 is not base64 \(it is no text\)"),
        ([{"image": None}], {}, r"row 0 has neither image nor path"),
        ([{"image": GOOD, "path": "/Volumes/a"}], {}, r"row 0 has both an image and a path"),
        ([{"image": encoded(b"no image")}], {}, r"row 0 is empty, corrupt or not a JPEG"),
        ([{"image": ""}], {}, r"row 0 is empty, corrupt or not a JPEG"),
        ([{"image": bomb()}], {}, r"row 0 has (10000 x 10000|too many) pixels, the limit is"),
        ([{"path": "/etc/passwd"}], {}, r"path of row 0 names no file of /Volumes"),
        ([{"path": "/Volumes/a\0b"}], {}, r"path of row 0 names no file of /Volumes"),
        ([{"path": 7}], {}, r"path of row 0 names no file of /Volumes"),
        ([{"image": GOOD}], {"regions": 101}, r"params\.regions: Input should be less than"),
        ([{"image": GOOD}], {"regions": float("nan")}, r"params\.regions: "),
        ([{"image": GOOD}], {"heatmap": "perhaps"}, r"params\.heatmap: "),
        ([{"image": GOOD}], {"colour": 1}, r"params\.colour: Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_answered_ends_in_one_sentence(rows, params, said):
    with pytest.raises(InputError, match=f"^{said}"):
        answer(make_model(), pd.DataFrame(rows), params)
