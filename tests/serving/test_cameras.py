"""Films, folders that fill, and live streams that break off, or are noise."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time

import av
import numpy as np
import pytest
from PIL import Image
from servers import free_port

from blackswan.errors import InputError
from blackswan.serving import cameras
from blackswan.serving.cameras import Counts, Live, open_camera


def write_film(path, frames=20, rate=25, codec="mpeg2video"):
    """Write grey frames, each a little brighter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), 40 + 5 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def ended():
    event = threading.Event()
    yield event
    event.set()


def test_a_film_waits_for_who_reads_it(tmp_path, ended):
    path, counts = write_film(tmp_path / "film.ts"), Counts()
    shots = list(open_camera(str(path), 8, 0, counts, ended))
    assert len(shots) == 20
    assert [round(shot.time, 2) for shot in shots] == [round(n / 25, 2) for n in range(20)]
    assert shots[0].image.shape == (48, 64, 3)
    assert (counts.dropped, counts.connected) == (0, False)
    assert len(list(open_camera(str(path), 8, 0.2, counts, ended))) == 4


def test_images_that_come_into_a_folder_are_taken_once_in_their_order(tmp_path, ended, monkeypatch):
    monkeypatch.setattr(cameras, "SETTLED_SECONDS", 0.02)
    Image.new("RGB", (8, 8)).save(tmp_path / "old.png")
    counts, begin = Counts(), time.time()
    os.utime(tmp_path / "old.png", (begin - 100, begin - 100))
    shots = open_camera(str(tmp_path), 8, 0, counts, ended)
    for number, name in enumerate(["z.png", "broken.png", "a.png"]):
        path = tmp_path / name
        if name == "broken.png":
            path.write_bytes(b"no image")
        else:
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        os.utime(path, (begin + 1e-3 * number, begin + 1e-3 * number))
    found = [next(shots), next(shots)]
    assert [int(shot.image[0, 0, 0]) for shot in found] == [0, 2]
    assert counts.garbage == 1
    Image.new("RGB", (8, 8), (7, 0, 0)).save(tmp_path / "copied.png")
    os.utime(tmp_path / "copied.png", (begin - 50, begin - 50))  # its time came with it
    assert next(shots).image[0, 0, 0] == 7
    ended.set()
    assert list(shots) == []


def test_what_is_no_source_is_refused(tmp_path, ended):
    with pytest.raises(InputError, match="is no film, folder or camera; name a file"):
        open_camera(str(tmp_path / "none"), 8, 0, Counts(), ended)


def answering(contents):
    """Listen, and send one of the contents to each who connects; return the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for content in contents:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(content)
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def test_a_lost_stream_is_connected_again_and_noise_is_no_frame(tmp_path, ended):
    film = write_film(tmp_path / "film.ts").read_bytes()
    noise = np.random.default_rng(0).bytes(300_000)
    counts, brightest = Counts(), []
    address = answering([film, noise, film])

    def end_after_three():
        while counts.lost < 3:
            time.sleep(0.005)
        ended.set()

    threading.Thread(target=end_after_three, daemon=True).start()
    for shot in Live(address, 0, counts, ended, first_seconds=0.01).shots():
        brightest.append(int(shot.image.mean()))
    seen = len(brightest)
    # frames come of both films and none of the noise; those that nobody took are counted
    assert max(brightest) < 140
    assert 1 <= seen <= seen + counts.dropped <= 40
    assert seen + counts.dropped >= 38  # the very last may wait when all ends


def test_a_slow_reader_gets_the_newest_frame_and_the_rest_is_counted(tmp_path, ended):
    film = write_film(tmp_path / "film.ts").read_bytes()
    counts = Counts()
    shots = Live(answering([film]), 0, counts, ended, first_seconds=60).shots()
    deadline = time.monotonic() + 20
    while counts.lost == 0:  # the whole film came, and nobody asked
        assert time.monotonic() < deadline
        time.sleep(0.005)
    shot = next(shots)
    assert abs(int(shot.image.mean()) - (40 + 5 * 19)) <= 3
    assert counts.dropped == 19


class Recorded(threading.Event):
    """Notes for how long the camera would wait, and ends it after nine times."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, timeout=None):
        if threading.current_thread().name != "camera":
            return super().wait(timeout)
        self.waits.append(timeout)
        if len(self.waits) == 9:
            self.set()
        return self.is_set()


def test_a_camera_that_does_not_answer_is_asked_ever_more_seldom():
    counts, recorded = Counts(), Recorded()
    shots = Live(f"tcp://127.0.0.1:{free_port()}", 0, counts, recorded).shots()
    assert list(shots) == []
    assert recorded.waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (counts.lost, counts.connected) == (9, False)


def test_a_camera_that_comes_back_is_waited_for_as_at_first(tmp_path):
    film = write_film(tmp_path / "film.ts").read_bytes()
    counts, recorded = Counts(), Recorded()
    address = answering([b"", b"no stream", film])  # and then nobody listens
    list(Live(address, 0, counts, recorded).shots())
    assert recorded.waits == [1, 2, 1, 2, 4, 8, 16, 32, 60]


def test_a_stream_that_ffmpeg_sends_is_taken_up_again(tmp_path, ended):
    """Its HTTP server takes one client and ends with the film: then the next one begins."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("no ffmpeg")
    dark, bright = tmp_path / "dark.ts", tmp_path / "bright.ts"
    write_film(dark, frames=10)
    write_film(bright, frames=40)
    address = f"http://127.0.0.1:{free_port()}"

    def send():
        for film in (dark, bright):
            words = ["-re", "-i", film, "-c", "copy", "-f", "mpegts", "-listen", "1", address]
            with contextlib.suppress(subprocess.TimeoutExpired):  # nobody came
                command = [ffmpeg, "-loglevel", "error", *words]
                subprocess.run(command, check=False, timeout=60)

    threading.Thread(target=send, daemon=True).start()
    counts, seen = Counts(), []
    for shot in Live(address, 0, counts, ended, first_seconds=0.05).shots():
        seen.append(int(shot.image.mean()))
        if seen[-1] > 150:
            ended.set()
    assert min(seen) < 40 + 5 * 10
    assert counts.lost >= 1
