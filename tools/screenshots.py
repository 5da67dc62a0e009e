"""Pictures of the inspection page for the README, of PatchCore on the source of the pipeline.

    python tools/screenshots.py     after `make repro`, with the extras serve, memory and test

Writes tests/serving/screenshots/. The page itself is tested by tests/test_repro.py.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import pandas as pd
from playwright.sync_api import Browser, ViewportSize, sync_playwright

from blackswan.errors import InputError, run

OUT = Path("tests/serving/screenshots")
PORT = 8077
SHOWN = ("cut_paste", "salt_and_pepper", "perlin_texture")
SCREENS: dict[str, tuple[ViewportSize, Literal["light", "dark"]]] = {
    "desktop-light": ({"width": 1280, "height": 1240}, "light"),
    "desktop-dark": ({"width": 1280, "height": 1240}, "dark"),
    "phone-light": ({"width": 390, "height": 1300}, "light"),
    "phone-dark": ({"width": 390, "height": 1300}, "dark"),
}


def chosen() -> list[str]:
    """Return the test images of highest score of some kinds, and three normal ones."""
    table = pd.read_parquet("data/scores/patchcore/scores.parquet")
    worst = table.sort_values("image_score", ascending=False)
    found = [worst[worst.defect == kind].path.head(2) for kind in SHOWN]
    return [f"data/{path}" for path in pd.concat([*found, table[table.label == 0].path.head(3)])]


def take(browser: Browser, name: str, images: list[str]) -> None:
    """Take the pictures of one screen."""
    size, colours = SCREENS[name]
    context = browser.new_context(viewport=size, color_scheme=colours)
    tab = context.new_page()
    tab.goto(f"http://127.0.0.1:{PORT}")
    tab.set_input_files("#files", images)
    tab.get_by_text(f"{len(images)} of {len(images)} images judged").wait_for()
    tab.locator("#layer").wait_for()
    tab.get_by_role("button", name="Find similar defects").click()
    tab.locator("#vote", has_text=re.compile("Looks|type|Nothing")).wait_for()
    tab.evaluate("() => scrollTo(0, 0)")
    tab.screenshot(path=OUT / f"inspect-{name}.jpg", type="jpeg", quality=80)
    tab.get_by_role("link", name="Evaluation").click()
    tab.locator("#misses img").last.wait_for()
    tab.wait_for_timeout(2000)  # until the last small picture is there
    tab.screenshot(path=OUT / f"evaluation-{name}.jpg", type="jpeg", quality=80)
    context.close()


def main() -> None:
    """Serve, look, and end the service."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise InputError("chromium is missing; apt-get install chromium")
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as memory:
        index = ["blackswan", "index", "data/defects", "--memory", f"{memory}/memory"]
        subprocess.run(index, check=True)
        words = ["data/detectors/patchcore", "--port", str(PORT), "--memory", f"{memory}/memory"]
        server = subprocess.Popen(["blackswan", "serve", *words], stdout=subprocess.PIPE)
        try:
            if not server.stdout or not server.stdout.readline():
                raise InputError("the service did not start; what it says stands above")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox"]
                )
                for name in SCREENS:
                    take(browser, name, chosen())
                browser.close()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    run(main)
