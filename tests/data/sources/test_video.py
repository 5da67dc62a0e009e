import itertools

import cv2
import numpy as np
import pytest

from blackswan.data.sources.video import (
    Sampling,
    check_headers,
    iterate_frames,
    list_videos,
)
from blackswan.errors import InputError


def sampling(**changes):
    everything = {"every_n_seconds": 0, "start_s": 0, "end_s": None, "max_frames": None}
    return Sampling(**{**everything, **changes})


def times(path, **changes):
    return [item.frame.timestamp_s for item in iterate_frames(path, sampling(**changes))]


def test_every_frame_of_a_drawn_clip(drawn_clip, capsys):
    items = list(iterate_frames(drawn_clip, sampling()))
    assert [item.frame.image for item in items] == [f"clip/{n:06d}" for n in range(40)]
    assert [item.frame.timestamp_s for item in items] == [round(n / 20, 6) for n in range(40)]
    assert {item.frame.source for item in items} == {"clip.avi"}
    assert {item.nbytes for item in items} == {items[0].nbytes}  # what waits in each, in YUV
    assert 40 * 48 * 1.5 <= items[0].nbytes <= 64 * 64 * 3
    pixels = [item.read() for item in items]  # after decoding has gone on
    assert {(image.shape, image.dtype, mask) for image, mask in pixels} == {
        ((40, 48, 3), np.dtype(np.uint8), None)
    }
    differences = [
        np.abs(a.astype(int) - b).mean() for (a, _), (b, _) in itertools.pairwise(pixels)
    ]
    assert min(differences) > 1
    disc = pixels[20][0][20, 20]  # (20, 230, 240) as RGB
    assert disc[0] < 60 < 180 < disc[2]
    assert capsys.readouterr().out == "clip.avi: 40 frames declared, 40 decoded, 40 taken\n"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"every_n_seconds": 0.5}, [0, 0.5, 1.0, 1.5]),
        ({"every_n_seconds": 0.5, "start_s": 0.3}, [0.3, 0.8, 1.3, 1.8]),
        ({"every_n_seconds": 0.3}, [0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8]),
        ({"every_n_seconds": 0.12}, [0, 0.15, 0.25, 0.4, 0.5, 0.6, 0.75, 0.85, 1.0]),
        ({"every_n_seconds": 5}, [0]),
        ({"start_s": 1.9}, [1.9, 1.95]),
        ({"start_s": 0.5, "end_s": 0.65}, [0.5, 0.55, 0.6]),
        ({"max_frames": 3}, [0, 0.05, 0.1]),
        ({"every_n_seconds": 1, "max_frames": 9}, [0, 1]),
    ],
)
def test_sampling_by_time(drawn_clip, changes, expected):
    assert times(drawn_clip, **changes)[: len(expected)] == expected
    if changes.get("every_n_seconds") != 0.12:
        assert times(drawn_clip, **changes) == expected


def test_decoding_is_lazy(drawn_clip):
    frames = iterate_frames(drawn_clip, sampling())
    assert next(frames).frame.image == "clip/000000"
    frames.close()


def test_listing(tmp_path, drawn_clip):
    assert list_videos(drawn_clip) == [drawn_clip]
    for name in ("b.MP4", "a.gif", "notes.txt", "._a.gif"):
        (tmp_path / name).touch()
    assert [path.name for path in list_videos(tmp_path)] == ["a.gif", "b.MP4"]
    assert list_videos(tmp_path / "notes.txt") == []


def test_a_folder_is_listed_with_its_sub_folders(tmp_path):
    for name in ("b/x.MTS", "a/c/x.ts", "x.3gp", ".trash/x.mp4", "b/.x.mp4", "b/x.srt", "README"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    videos = [path.relative_to(tmp_path).as_posix() for path in list_videos(tmp_path)]
    assert videos == ["a/c/x.ts", "b/x.MTS", "x.3gp"]
    (tmp_path / "b/loop").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads back to"):
        list_videos(tmp_path)


def test_what_is_no_video_is_refused(tmp_path, drawn_clip):
    small = tmp_path / "small.avi"
    writer = cv2.VideoWriter(str(small), cv2.VideoWriter_fourcc(*"MJPG"), 5, (40, 8))
    writer.write(np.zeros((8, 40, 3), np.uint8))
    writer.release()
    with pytest.raises(InputError, match="is 40x8 pixels; at least 16x16 are needed"):
        times(small)
    with pytest.raises(InputError, match="none of its 40 frames lies between"):
        times(drawn_clip, start_s=99)
    # The header alone: it opens, and no frame can be decoded.
    whole = drawn_clip.read_bytes()
    (tmp_path / "header.avi").write_bytes(whole[: whole.index(b"movi") + 4])
    with pytest.raises(InputError, match=r"header\.avi (is no video|has no frame) that"):
        times(tmp_path / "header.avi")


# Real clips


def test_all_broken_videos_of_a_folder_are_named_at_once(tmp_path, drawn_clip):
    (tmp_path / "a.avi").write_bytes(drawn_clip.read_bytes())
    (tmp_path / "b.mp4").touch()
    (tmp_path / "c.mp4").write_text("no video")
    check_headers([tmp_path / "a.avi"])
    with pytest.raises(InputError, match=r"b.mp4 is empty; .*; .*c.mp4 is no video that FFmpeg"):
        check_headers(list_videos(tmp_path))


def test_variable_frame_rates_come_from_the_container(shared_videos):
    gif = times(shared_videos / "newtonscradle.gif")
    assert gif[:9] == [0.0, 0.05, 0.07, 0.09, 0.11, 0.13, 0.15, 0.17, 0.19]
    assert len(gif) == 36
    assert set(np.round(np.diff(gif), 3)) == {0.02, 0.04, 0.05}
    webm = times(shared_videos / "no_duration.webm")
    assert len(webm) == 74
    assert webm[:6] == [0.0, 0.067, 0.134, 0.196, 0.267, 0.333]
    for clip in (gif, webm):
        assert (np.diff(clip) > 0).all()


def test_rotation_is_honoured(shared_videos):
    def first(name):
        item = next(iter(iterate_frames(shared_videos / f"video_{name}.mov", sampling())))
        return item.read()[0]

    assert first("0").shape == (320, 568, 3)
    assert first("90").shape == (568, 320, 3)
    turned = first("180")
    assert turned.shape == (320, 568, 3)
    capture = cv2.VideoCapture(str(shared_videos / "video_180.mov"))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    stored = capture.read()[1][..., ::-1]
    assert np.array_equal(turned, stored[::-1, ::-1])


@pytest.mark.parametrize(
    ("name", "said", "last"),
    [
        ("blackswan.mp4", "50 frames declared, 50 decoded, 50 taken", 2.041667),
        ("corrupted.mp4", "50 frames declared, 28 decoded, 28 taken", 2.7),
        ("tree_declares_444_has_68.avi", "444 frames declared, 68 decoded, 68 taken", 29.533481),
        ("no_duration.webm", "unknown frames declared, 74 decoded, 74 taken", 4.872),
        ("flipping_a_pancake.mkv", "frames declared, 310 decoded, 310 taken", 10.3),
    ],
)
def test_decoding_ends_where_the_stream_does_and_says_so(shared_videos, name, said, last, capfd):
    found = times(shared_videos / name)
    out, err = capfd.readouterr()
    assert said in out
    damage = "corrupted.mp4: 22 frames are damaged, or build on such, and are left out\n"
    assert err == (damage if name == "corrupted.mp4" else "")  # FFmpeg keeps quiet
    assert found[0] == 0
    assert found[-1] == pytest.approx(last, abs=1e-6)


def test_sampling_a_variable_rate_takes_the_first_frame_after_each_time(shared_videos):
    every = times(shared_videos / "no_duration.webm")
    sampled = times(shared_videos / "no_duration.webm", every_n_seconds=0.5, start_s=1)
    grid = np.arange(1, every[-1], 0.5)
    assert sampled == [next(time for time in every if time >= at - 0.0005) for at in grid]


def test_one_pixel(shared_videos):
    with pytest.raises(InputError, match="is 1x1 pixels"):
        times(shared_videos / "one_pixel.mp4")
