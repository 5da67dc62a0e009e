"""Clips with faults, encoded here; what is right of each is that every whole frame comes out."""

from fractions import Fraction

import av
import numpy as np
import pytest

from blackswan.data.sources.clock import Clock, missing
from blackswan.data.sources.video import Sampling, iterate_frames
from blackswan.errors import InputError

WIDTH, HEIGHT = 96, 64


def draw(number):
    """Return a picture with a bright block that moves by 4 pixels a frame."""
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[16:40, 4 * number % 72 : 4 * number % 72 + 24] = (220, 180, 60)
    image[:8, :8] = 255  # which corner is the first
    return image


def add_film(container, codec="mpeg4", pixels="yuv420p", options=None, rate=10):
    stream = container.add_stream(codec, rate=rate, options=options or {})
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
    stream.codec_context.gop_size = 10
    stream.codec_context.bit_rate = 2_000_000
    return stream


def fill(container, stream, images):
    for number, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = number, 1 / Fraction(stream.codec_context.framerate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def encode(path, count=40, change=None, images=None, format=None, **settings):
    with av.open(str(path), "w", format=format) as container:
        stream = add_film(container, **settings)
        if change:
            change(stream)
        fill(container, stream, images or map(draw, range(count)))
    return path


def read(path, **changes):
    everything = {"every_n_seconds": 0, "start_s": 0, "end_s": None, "max_frames": None}
    return list(iterate_frames(path, Sampling(**{**everything, **changes})))


def times(items):
    return [item.frame.timestamp_s for item in items]


def is_drawn(item, number):
    return np.abs(item.read()[0].astype(int) - draw(number)).mean() < 8


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "mpeg4", "yuv420p"),
        ("a.mkv", "mpeg4", "yuv420p"),
        ("a.ts", "mpeg2video", "yuv420p"),
        ("a.mts", "mpeg2video", "yuv420p"),
        ("a.mpg", "mpeg2video", "yuv420p"),
        ("a.wmv", "wmv2", "yuv420p"),
        ("a.flv", "flv", "yuv420p"),
        ("a.3gp", "mpeg4", "yuv420p"),
        ("ten_bit.mkv", "ffv1", "yuv420p10le"),
        ("alpha.mov", "png", "rgba"),
    ],
)
def test_containers_and_depths(tmp_path, capfd, name, codec, pixels):
    rate = 25 if codec == "mpeg2video" else 10  # which knows few rates
    kind = {"format": "mpegts"} if name.endswith("mts") else {}
    path = encode(tmp_path / name, count=12, codec=codec, pixels=pixels, rate=rate, **kind)
    items = read(path)
    assert len(items) == 12
    assert all(is_drawn(item, number) for number, item in enumerate(items))
    assert np.allclose(times(items), np.arange(12) / rate, atol=0.001)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.avi"])
def test_seeking_yields_the_frames_of_the_whole(tmp_path, capsys, name):
    path = encode(tmp_path / name, count=60)
    whole = [item for item in read(path) if item.frame.timestamp_s >= 4.5 - 0.0005]
    capsys.readouterr()
    late = read(path, start_s=4.5)
    assert [item.frame for item in late] == [item.frame for item in whole]
    assert len(late) == 15
    for found, expected in zip(late, whole, strict=True):
        assert np.array_equal(found.read()[0], expected.read()[0])
    decoded = int(capsys.readouterr().out.split(" decoded")[0].split()[-1])
    assert decoded == 60 if name.endswith("avi") else 15 < decoded < 30


def test_interlaced_frames_are_deinterlaced(tmp_path):
    def woven(number):
        image = draw(2 * number)
        image[1::2] = draw(2 * number + 1)[1::2]
        return image

    def comb(image):  # rows against those beside them, where there are no edges of blocks
        rows = image[18:38].astype(int)
        return np.abs(2 * rows[1:-1] - rows[:-2] - rows[2:]).mean()

    path, images = tmp_path / "a.mkv", [woven(number) for number in range(12)]
    interlaced = {"flags": "+ildct+ilme"}
    items = read(encode(path, images=images, codec="mpeg2video", options=interlaced, rate=25))
    assert times(items) == [round(number / 25, 6) for number in range(12)]
    assert comb(images[5]) > 3 * comb(items[5].read()[0])
    assert np.abs(items[5].read()[0].astype(int) - draw(10)).mean() < 12


def test_rotation_and_the_shape_of_pixels(tmp_path):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    plain = read(encode(tmp_path / "plain.mp4", count=3))[0].read()[0]
    stretched = read(encode(tmp_path / "wide.mkv", count=3, change=wide))[0].read()[0]
    assert stretched.shape == (HEIGHT, WIDTH * 3 // 2, 3)
    turned = read(
        encode(tmp_path / "turned.mp4", count=3, change=lambda s: s.set_display_rotation(90))
    )[0].read()[0]
    assert np.array_equal(turned, np.rot90(plain))


def test_clocks_are_made_to_rise():
    def read_all(raw, rate=10):
        clock = Clock(Fraction(rate))
        return [round(clock.read(time), 6) for time in raw], clock.mended

    assert read_all([0, 0.1, 0.25]) == ([0, 0.1, 0.25], 0)
    assert read_all([None, None, None]) == ([0, 0.1, 0.2], 3)
    assert read_all([0, 0, 0]) == ([0, 0.1, 0.2], 2)
    assert read_all([5, 5.1, 0, 0.1]) == ([5, 5.1, 5.2, 5.3], 1)  # began anew
    assert read_all([0.1, 0.3, 0.2, 0.6]) == ([0.1, 0.3, 0.4, 0.6], 1)  # out of order
    assert read_all([0] * 40) == ([round(n / 10, 6) for n in range(40)], 39)


def test_two_streams_joined(tmp_path, capfd):
    part = encode(tmp_path / "part.ts", count=20).read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    items = read(tmp_path / "joined.ts")
    assert len(items) == 40
    assert (np.diff(times(items)) > 0).all()
    err = capfd.readouterr().err
    assert "joined.ts: the clock steps back or stands still at 1 frames; times were made" in err
    assert len(err.splitlines()) == 1


def test_damaged_frames_are_counted_and_left_out(tmp_path, capfd):
    path = encode(tmp_path / "a.mkv", count=60)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place = content.index(bytes(packets[23])) + 6
        size = packets[23].size
    content[place : place + size - 6] = b"\xff" * (size - 6)
    path.write_bytes(content)
    items = read(path)
    assert [int(item.frame.image[-6:]) for item in items] == [*range(23), *range(30, 60)]
    assert all(is_drawn(item, int(item.frame.image[-6:])) for item in items)
    assert capfd.readouterr().err == (
        "a.mkv: 7 frames are damaged, or build on such, and are left out\n"
    )


@pytest.mark.parametrize(
    ("name", "codec", "rate"), [("a.mkv", "mpeg4", 10), ("a.ts", "mpeg2video", 25)]
)
def test_frames_that_left_a_gap_alone_are_counted(tmp_path, capfd, name, codec, rate):
    path = encode(tmp_path / name, count=120, codec=codec, rate=rate)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    del content[middle : middle + len(content) // 12]
    path.write_bytes(content)
    count = len(read(path))
    assert 60 < count < 115
    err = capfd.readouterr().err
    assert "frames are missing, by the gaps in the times" in err
    counted = [int(part.split()[0]) for part in err.removeprefix(f"{name}: ").split("; ")]
    assert sum(counted) == 120 - count


def test_gaps_are_counted_where_the_rate_is_constant(tmp_path, capfd):
    at_24 = [round(n / 24, 3) for n in range(200)]
    assert missing(at_24) == 0
    assert missing(at_24[:50] + at_24[150:]) == 100
    assert missing([*at_24[:9], 60]) == 0  # too few
    assert missing(np.cumsum([0.02, 0.05, 0.04] * 20)) == 0
    path = encode(tmp_path / "a.mp4", count=30)  # lists its frames, so a gap is a pause
    with av.open(str(path)) as whole, av.open(str(tmp_path / "b.mp4"), "w") as late:
        stream = late.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                packet.pts += (packet.pts > 20 * packet.duration) * 5 * packet.duration
                packet.dts = packet.pts
                late.mux(packet)
    assert np.diff(times(read(tmp_path / "b.mp4"))).max() == pytest.approx(0.6)
    assert capfd.readouterr().err == ""


def test_a_file_cut_short(tmp_path):
    whole = encode(tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert 10 < len(read(tmp_path / "cut.mkv")) < 30
    whole = encode(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: whole.rindex(b"moov") - 4])
    with pytest.raises(InputError, match=r"cut\.mp4 has no moov atom, the index .* record or copy"):
        read(tmp_path / "cut.mp4")


def test_a_cover_is_no_film(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        cover = add_film(container, "mjpeg", "yuvj420p")
        film = add_film(container)
        fill(container, cover, [draw(0)])
        fill(container, film, map(draw, range(20)))
    assert len(read(tmp_path / "a.mkv")) == 20


def test_a_title_that_is_no_utf_8(tmp_path):
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Muenster"
        fill(container, add_film(container), map(draw, range(12)))
    path.write_bytes(path.read_bytes().replace(b"Muenster", b"M\xfcnster "))
    assert len(read(path)) == 12


def test_what_has_no_film(tmp_path):
    with av.open(str(tmp_path / "sound.mov"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"sound\.mov holds sound but no moving picture; take"):
        read(tmp_path / "sound.mov")
    path = encode(tmp_path / "odd.avi", codec="mjpeg", pixels="yuvj420p")
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZZ1"))
    with pytest.raises(InputError, match=r"odd\.avi uses the codec 'ZZZ1', which FFmpeg cannot"):
        read(path)


# Real cases


@pytest.mark.parametrize(
    ("name", "count", "said"),
    [
        ("video/interlaced_h264.mp4", 75, ""),
        ("video/av1.mp4", 40, ""),
        ("video/corrupt_mid.mp4", 95, "25 frames are damaged"),
        ("video/joined_ts_named.mp4", 120, "steps back or stands still at 1 frames"),
        ("video/b_enc.avi", 60, "steps back or stands still"),
        ("video/nob_h264_named.mp4", 60, "steps back or stands still at 60 frames"),
        ("video/cover_first.mkv", 60, ""),
        ("video/static10s.mp4", 102, ""),
        ("mts_folder/CLIP.MTS", 60, ""),
    ],
)
def test_the_shared_cases(shared_videos, capfd, name, count, said):
    items = read(shared_videos.parent / "cases" / name)
    assert len(items) == count
    assert (np.diff(times(items)) > 0).all()
    err = capfd.readouterr().err
    assert said in err
    assert len(err.splitlines()) == bool(said)
