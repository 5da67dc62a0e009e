"""One Spark session for all the tests that need one."""

import shutil
import threading
import time
from contextlib import suppress

import psutil
import pytest

from blackswan.distributed.session import session


@pytest.fixture(scope="session")
def spark():
    """A session of this machine, which whatever opens one joins."""
    pytest.importorskip("pyspark", reason="the extra spark is not installed")
    if not shutil.which("java"):
        pytest.skip("Java is missing")
    with session() as opened:
        yield opened


@pytest.fixture
def kill_a_worker():
    """Return what kills a Python worker of Spark as soon as a folder holds a file, once."""
    threads = []

    def watch(folder, pattern):
        def kill():
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                if any(folder.rglob(pattern)):
                    # Forks of one daemon, which Spark starts by this module.
                    with suppress(psutil.Error):  # some end meanwhile
                        workers = [
                            worker
                            for daemon in psutil.Process().children(recursive=True)
                            if daemon.status() != psutil.STATUS_ZOMBIE
                            if "pyspark.daemon" in daemon.cmdline()
                            for worker in daemon.children()
                        ]
                        for worker in workers:
                            worker.kill()
                        if workers:
                            return
                time.sleep(0.005)

        threads.append(threading.Thread(target=kill))
        threads[-1].start()

    yield watch
    for thread in threads:
        thread.join()
