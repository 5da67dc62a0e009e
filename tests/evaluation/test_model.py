import shutil

import numpy as np
import pytest

import blackswan
from blackswan.data.images import read_image
from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.detectors import median_residual
from blackswan.errors import InputError
from blackswan.evaluation import model as models

SCORES = [10.1, 10.2, 10.3 + 1e-12, 10.4, 10.5]


@pytest.fixture
def folder(tmp_path):
    detector = median_residual.Detector(median_residual.Params(kernel=3, blur=3))
    (tmp_path / "fit").mkdir()
    detector.save(tmp_path / "fit")
    facts = models.Facts(
        detector="median_residual",
        alpha=0.2,
        threshold=10.3 + 1e-12,
        threshold_from="5 images",
        heatmap=models.Scale(threshold=10, top=20),
        preprocessing=Preprocessing(steps=[Step(crop="center_square", size=16)]),
        data_sha256="0" * 64,
    )
    (tmp_path / "model").mkdir()
    models.save(
        tmp_path / "model", tmp_path / "fit", facts, [np.array(SCORES), np.array([9.0, 10.35])]
    )
    return tmp_path / "model"


def test_a_model_survives_its_folder_to_the_last_bit_and_wherever_it_is_copied(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere/model")
    shutil.rmtree(folder)
    loaded = blackswan.load(str(tmp_path / "elsewhere/model"))
    assert loaded.facts.threshold == 10.3 + 1e-12
    assert [part.tolist() for part in loaded.normal_scores] == [SCORES, [9.0, 10.35]]


def test_new_images_are_prepared_as_those_it_learnt_from(folder):
    image = np.zeros((40, 60, 3), np.uint8)
    image[18:20, 10:50:2] = 255
    loaded = blackswan.load(folder)
    prepared = loaded.prepare(image)
    assert prepared.shape == (16, 16, 3)
    verdicts = loaded.score([image, np.zeros((20, 20, 3), np.uint8)])
    [score] = median_residual.load(folder / "fitted").score([prepared]).image_scores
    assert verdicts.image_scores.tolist() == [score, 0]
    assert verdicts.flagged.tolist() == [True, False]
    assert verdicts.p_values.tolist() == [1 / 6, 1]
    assert [anomaly_map.shape for anomaly_map in verdicts.anomaly_maps] == [(16, 16)] * 2


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"model.json; name a folder such as data/detectors"):
        blackswan.load(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "normal_scores.parquet").touch()
    (tmp_path / "fitted").mkdir()
    with pytest.raises(InputError, match=r"model.json: alpha is missing|detector is missing"):
        blackswan.load(tmp_path)


def test_the_fingerprint_is_of_the_contents_in_their_order(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "c").write_bytes(b"1")
    one, other = tmp_path / "a", tmp_path / "b"
    assert models.fingerprint([one, other]) == models.fingerprint([tmp_path / "c", other])
    assert models.fingerprint([one, other]) != models.fingerprint([other, one])


def test_reading_an_image_file_needs_nothing_else(folder, tmp_path):
    from blackswan.data.images import write_png

    write_png(tmp_path / "a.png", np.full((20, 20, 3), 9, np.uint8))
    assert not blackswan.load(folder).score([read_image(tmp_path / "a.png")]).flagged[0]


def test_a_model_that_was_not_copied_whole_is_named(folder):
    (folder / "normal_scores.parquet").write_text("junk")
    with pytest.raises(InputError, match=r"normal_scores.parquet cannot be read .*copy the model"):
        blackswan.load(folder)
