import numpy as np
import pytest

from blackswan.detectors.interface import Scores
from blackswan.evaluation.score_maps import open_writer, read_map, to_table

KINDS = {
    "patches": ((56, 56), np.float32, {"size": (224, 224), "smoothing": 0.018}),
    "of a tall image": ((8, 4), np.float32, {"size": (65, 32), "smoothing": 0.0}),
    "pixels": ((48, 40), np.uint8, {"size": (48, 40), "box": 9}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_has_the_bytes_that_were_scored(kind, tmp_path):
    shape, dtype, how = KINDS[kind]
    values = (255 * np.random.default_rng(0).random((5, *shape))).astype(dtype)
    scores = Scores.of_peaks(values, **how)
    file, paths = tmp_path / "maps.parquet", [f"images/{number}.png" for number in range(5)]
    with open_writer(file) as writer:
        for batch in (slice(0, 3), slice(3, 5)):
            part = Scores(scores.image_scores[batch], values[batch], **how)
            writer.write_table(to_table(paths[batch], part))
    for number in (4, 0, 2):
        found = read_map(file, paths[number])
        assert found.dtype == np.float32
        assert found.tobytes() == scores.anomaly_maps[number].tobytes()
        assert found.max() == scores.image_scores[number]
    assert file.stat().st_size < 5 * (values[0].nbytes + 1000)  # and not that of all pixels
