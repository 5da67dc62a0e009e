"""A new version of the detector is loaded beside the old one, and then takes its place."""

import logging
import threading
from collections.abc import Callable

from blackswan.errors import InputError
from blackswan.serving.detectors import Folder, Loaded, Source, load_detector
from blackswan.serving.scorer import Scorer

log = logging.getLogger(__name__)


class Reload:
    """Looks at a source again and again, in a thread of its own."""

    def __init__(
        self,
        source: Source,
        scorer: Scorer,
        stamp: str,
        seconds: float,
        complete: Callable[[Loaded], Loaded] = lambda loaded: loaded,
    ) -> None:
        """Take `stamp` for that of the detector which is served; `complete` each that comes."""
        self._source, self._scorer, self._seconds = source, scorer, seconds
        self._complete = complete
        self._served = self._failed = stamp
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def look(self) -> bool:
        """Swap the detector where there is another, whole one; say whether there was.

        Where the new one cannot be loaded the old one goes on, and the log says why.
        """
        try:
            stamp = self._source.stamp()
            if stamp in (self._served, self._failed):
                return False
            self._failed = stamp
            loaded = load_detector(self._source)
            if self._source.stamp() != stamp:  # it changed while it was read
                self._failed = self._served
                return False
            loaded = self._complete(loaded)
        except (InputError, OSError) as error:
            why = error if isinstance(error, InputError) else type(error).__name__
            log.error("the detector is not replaced: %s", why)
            if not isinstance(self._source, Folder):
                self._failed = self._served  # a remote may answer next time
            return False
        self._served = stamp
        if (loaded.base or loaded.hash) in (self._scorer.current.hash, self._scorer.current.base):
            return False
        self._scorer.swap(loaded)
        log.warning("%s of hash %s is served now", loaded.source, loaded.hash)
        return True

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self.look()
            except Exception:  # what a library raises must not end the thread
                log.exception("the detector is not replaced")
