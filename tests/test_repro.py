"""The whole pipeline under `dvc repro` on a drawn clip: killed, forced, shared."""

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT, draw_clip
from playwright.sync_api import Browser, Page, sync_playwright
from servers import free_port
from tiny_weights import write_weights

from blackswan.data.dataset import Split, write_shards
from blackswan.data.images import encode_png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# What a stage has begun to write when it is killed.
BEGUN = {
    "extract_frames": "data/.frames.partial/**/*.png",
    "synthesize_anomalies": "data/.anomalies.partial/**/*.png",
    "label": "data/anomalies/index.csv",
    "build_dataset": "data/.dataset.partial/*/*.parquet",
    "train_vit": "data/checkpoints/train_vit/*/checkpoint-*/complete",
    "fit_detector@padim": "data/models/vit/detector.json",
    "evaluate_detector@padim": "data/scores/.padim.partial/maps.parquet",
    "evaluate_reference@vit": "data/scores/.vit.partial/maps.parquet",
    "compare": "metrics/.pictures.partial/**/*.png",
}
COMMAND = str(Path(sys.executable).with_name("blackswan"))
SCREENS = {
    "desktop-light": ({"width": 1280, "height": 1240}, "light"),
    "desktop-dark": ({"width": 1280, "height": 1240}, "dark"),
    "phone-light": ({"width": 390, "height": 1300}, "light"),
    "phone-dark": ({"width": 390, "height": 1300}, "dark"),
}
PICTURES = "BLACKSWAN_SCREENSHOTS"  # the folder that gets pictures of the page, after `make repro`
QUICK = {"fetch_weights@tiny", "fit_baseline", "evaluate_reference@median_residual"}


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory, small_params: dict) -> Path:
    """A repository in which nothing has run yet; read only."""
    root = tmp_path_factory.mktemp("unused") / "project"
    root.mkdir()
    for name in ("stages", "blackswan"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    tracked = ["dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config"]
    kept = ["data/.gitignore", "data/corrections.csv", "data/ignore.json"]
    for name in [*tracked, *kept, "metrics/robustness.json"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    draw_clip(root / "data/raw/clip.avi", frames=85, fps=40)
    weights = write_weights(root / "weights", "dinov2") / "model.safetensors"
    pinned = {
        "sha256": sha256(weights.read_bytes()).hexdigest(),
        "licence": "none",
        "note": "random",
    }
    params = copy.deepcopy(small_params)
    params["fetch_weights"] = {"tiny": {"source": "folder", "path": "weights", **pinned}}
    pipeline = (root / "dvc.yaml").read_text()
    for name in ("patchcore", "dino_memory"):  # taken out of params.yaml
        pipeline = pipeline.replace(f"        - ${{detectors.{name}.backbone}}\n", "")
    (root / "dvc.yaml").write_text(pipeline)
    tiny = {"backbone": "tiny", "image_size": 56, "frozen_blocks": 1, "epochs": 3}
    params["train_vit"] |= tiny
    params["compare"] |= {"references": {"vit": "", "median_residual": ""}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


@pytest.fixture(scope="module")
def finished(unused: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after an undisturbed run, committed; read only."""
    root = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(unused, root)
    dvc(root, "repro", "compare")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "run")
    return root


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished repository, to be changed."""
    shutil.copytree(finished, tmp_path / "project")
    return tmp_path / "project"


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True)


def log(root: Path) -> Path:
    """Return the file for what DVC prints: outside, for `dvc exp run` puts untracked ones aside."""
    return root.with_suffix(".log")


def start(root: Path, *words: str) -> subprocess.Popen:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", *words],
        cwd=root,
        start_new_session=True,
        env={**os.environ, "PATH": path},
        stdout=log(root).open("w"),
        stderr=subprocess.STDOUT,
    )


def dvc(root: Path, *words: str) -> str:
    """Run DVC to its end and return what it and its stages printed."""
    code = start(root, *words).wait()
    printed = log(root).read_text()
    assert code == 0, printed[-2000:]
    return printed


def stages_run(printed: str) -> list[str]:
    return re.findall(r"Running stage '(.+)'", printed)


def kill_during(stage: str, root: Path) -> None:
    process = start(root, "repro", "compare")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if stage in stages_run(log(root).read_text()) and next(root.glob(BEGUN[stage]), None):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.002)
    pytest.fail(f"{stage} was never seen at work:\n{log(root).read_text()[-2000:]}")


def test_killed_in_every_stage_it_ends_with_the_lock_of_an_undisturbed_run(
    unused: Path, finished: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(unused, project)
    for stage in BEGUN:
        kill_during(stage, project)
    dvc(project, "repro", "compare")
    assert (project / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()
    stages = yaml.safe_load((finished / "dvc.lock").read_text())["stages"]
    assert set(BEGUN) | QUICK == set(stages)


@pytest.mark.parametrize("committed", [True, False])
def test_with_a_cut_lock_it_ends_with_the_lock_of_an_undisturbed_run(
    project: Path, committed: bool
) -> None:
    if not committed:
        git(project, "rm", "-q", "--cached", "dvc.lock")
        git(project, "commit", "-qm", "no lock")
    whole = (project / "dvc.lock").read_bytes()
    for kept in (0, 8192, len(whole) - 9) if committed else (8192,):
        (project / "dvc.lock").write_bytes(whole[:kept])
        mend = [sys.executable, str(ROOT / "tools/lock.py")]
        said = subprocess.run(mend, cwd=project, check=True, capture_output=True, text=True).stdout
        assert said.startswith("dvc.lock was cut by a kill and is restored: ")
        # What the last commit does not give, the run cache does.
        assert stages_run(dvc(project, "repro", "compare")) == []
        assert (project / "dvc.lock").read_bytes() == whole


def test_a_forced_run_leaves_the_lock_as_it_is(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    printed = dvc(project, "repro", "--force", "compare")
    assert set(stages_run(printed)) == set(BEGUN) | QUICK
    assert (project / "dvc.lock").read_bytes() == before


def test_a_second_run_does_nothing_and_alpha_reruns_check_and_evaluation(project: Path) -> None:
    assert stages_run(dvc(project, "repro", "compare")) == []
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("alpha: 0.2", "alpha: 0.3"))
    first, *evaluations, last = stages_run(dvc(project, "repro", "compare"))
    assert first == "label"  # do the images support it
    assert sorted(evaluations) == [
        "evaluate_detector@padim",
        "evaluate_reference@median_residual",
        "evaluate_reference@vit",
    ]
    assert last == "compare"


def change(project: Path, **values: object) -> None:
    """Change params, `__` for the dot."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    for key, value in values.items():
        block, name = key.split("__")
        params[block][name] = value
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def content(project: Path) -> dict[str, bytes]:
    """Return the bytes of all outputs, and what git tracks of them."""
    files = [project / "dvc.lock", *project.glob("metrics/**/*.*"), *project.glob("data/**/*.*")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


@pytest.mark.parametrize(
    ("key", "value", "affected"),
    [
        ("fit_baseline__kernel", 5, {"fit_baseline", "evaluate_reference@median_residual"}),
        ("train_vit__learning_rate", 1e-4, {"train_vit", "evaluate_reference@vit"}),
    ],
)
def test_there_and_back_computes_nothing(
    project: Path, key: str, value: float, affected: set[str]
) -> None:
    before, params = content(project), (project / "params.yaml").read_text()
    change(project, **{key: value})
    assert set(stages_run(dvc(project, "repro", "compare"))) == affected | {"compare"}
    (project / "params.yaml").write_text(params)
    printed = dvc(project, "repro", "compare")
    assert stages_run(printed) == []
    assert set(re.findall(r"'(.+)' is cached - skipping run", printed)) == affected | {"compare"}
    assert content(project) == before


def test_git_checkout_then_repro_computes_nothing(project: Path) -> None:
    before = content(project)
    change(project, fit_baseline__kernel=5)
    dvc(project, "repro", "compare")
    assert content(project) != before
    git(project, "checkout", "-q", ".")
    assert stages_run(dvc(project, "repro", "compare")) == []
    assert content(project) == before


def test_the_same_experiment_twice_computes_once(project: Path) -> None:
    words = ("exp", "run", "-S", "fit_baseline.kernel=5", "compare")
    assert "fit_baseline" in stages_run(dvc(project, *words))
    first = content(project)
    git(project, "checkout", "-q", ".")
    assert stages_run(dvc(project, *words)) == []
    assert content(project) == first


def test_curves_of_two_runs_lie_over_each_other(project: Path) -> None:
    change(project, train_vit__learning_rate=1e-4)
    dvc(project, "repro", "compare")
    plots = json.loads(dvc(project, "plots", "diff", "HEAD", "workspace", "--json"))["data"]
    expected = {
        "metrics/curves/vit/roc.csv": ("ROC of vit", "false alarms among normal images"),
        "metrics/curves/vit/precision_recall.csv": ("Precision and recall of vit", "recall"),
        "metrics/curves/padim/pro.csv": (
            "Per-region overlap of padim",
            "false alarms among normal pixels",
        ),
        "Loss of the ViT": ("Loss of the ViT", "epoch"),
    }
    for name, (title, label) in expected.items():
        [plot] = plots[name]
        assert plot["revisions"] == ["workspace", "HEAD"]
        assert plot["content"]["title"]["text"] == title
        assert plot["content"]["encoding"]["x"]["title"] == label
        points = plot["content"]["data"]["values"]
        assert {point["rev"] for point in points} == {"workspace", "HEAD"}


def test_another_unseen_generator_refits_nothing(project: Path) -> None:
    change(project, synthesize_anomalies__unseen=["gaussian_blur"])
    ran = stages_run(dvc(project, "repro", "compare"))
    assert {"synthesize_anomalies", "label", "build_dataset", "compare"} <= set(ran)
    assert [stage for stage in ran if stage.startswith(("train", "fit"))] == []


def test_the_vit_is_not_trained_where_the_table_does_not_ask_for_it(unused: Path) -> None:
    params = yaml.safe_load((unused / "params.yaml").read_text())
    assert "train_vit" in dvc(unused, "dag", "--dot", "compare")
    params["compare"]["references"].pop("vit")
    (unused / "params.yaml").write_text(yaml.safe_dump(params))
    upstream = dvc(unused, "dag", "--dot", "compare")
    git(unused, "checkout", "-q", "params.yaml")
    assert "fit_detector@padim" in upstream
    assert "train_vit" not in upstream


def test_a_stage_that_fails_says_how_to_bring_its_last_outputs_back(project: Path) -> None:
    before = content(project)
    change(project, evaluate__alpha=0.001)
    assert start(project, "repro", "evaluate_detector@padim").wait() != 0
    said = log(project).read_text()
    assert "`dvc checkout` brings back" in said
    assert content(project) != before
    git(project, "checkout", "-q", ".")
    start(project, "checkout").wait()  # the sample clip, which never was there, is missing
    assert content(project) == before


def test_the_backbone_of_a_detector_is_one_param(project: Path) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["fetch_weights"]["other"] = params["fetch_weights"]["tiny"]
    params["detectors"]["padim"]["backbone"] = "other"
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    ran = stages_run(dvc(project, "repro", "evaluate_detector@padim"))
    assert [stage for stage in ran if stage != "label"] == [
        "fetch_weights@other",
        "fit_detector@padim",
        "evaluate_detector@padim",
    ]


def test_a_clone_that_pulls_has_nothing_to_do(project: Path, tmp_path: Path) -> None:
    dvc(project, "repro", "embed_defects")
    dvc(project, "add", "data/raw/clip.avi")
    # What `dvc repro` without a target would have fetched.
    shutil.copy(project / "data/raw/clip.avi", project / "data/sample.mp4")
    dvc(project, "commit", "--force", "fetch_sample")
    dvc(project, "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    dvc(project, "push")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "share")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(project), str(clone))
    dvc(clone, "pull")
    assert "up to date" in dvc(clone, "status")
    assert stages_run(dvc(clone, "repro", "compare", "embed_defects")) == []


@pytest.mark.parametrize("page", ["plots", "report"])
def test_the_pictures_show_in_a_browser_without_a_network(project: Path, page: str) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    dvc(project, "plots", "show", "--out", "plots")
    path = project / {"plots": "plots/index.html", "report": "metrics/report.html"}[page]
    asked = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        widths = tab.evaluate("[...document.images].map(image => image.naturalWidth)")
        browser.close()
    pictures = len(list((project / "metrics/pictures").rglob("*.png")))
    assert pictures > 10
    assert len(widths) == pictures
    assert min(widths) > 100
    # The curves of DVC's own page need a library from the net; the pictures show without it.
    outside = [url for url in asked if not url.startswith(("file:", "data:"))]
    assert [url for url in outside if page == "report" or "/npm/vega" not in url] == []


@contextlib.contextmanager
def served(project: Path, detector: str, *words: str) -> Iterator[str]:
    """Serve a detector of the project, yield the address, and end it whatever happens."""
    log = Path(tempfile.mkdtemp(), "serve.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            [COMMAND, "serve", f"data/detectors/{detector}", "--port", str(free_port()), *words],
            cwd=project, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://\S+", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def violations(tab: Page) -> list[str]:
    """Return the rules of accessibility that the page as it stands breaks."""
    found = Axe().run(tab).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]


def look_around(browser: Browser, url: str, files: list[str], normals: int, screen: str) -> None:
    """Use the page on a screen, and see that it works, keeps nobody out and asks no other site.

    `normals` are the normal test images. Pictures are taken where the environment names a folder.
    """
    size, colours = SCREENS[screen]
    context = browser.new_context(
        viewport=size, color_scheme=colours, bypass_csp=True, service_workers="block"
    )
    tab, asked, wrong = context.new_page(), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))

    def picture(name: str) -> None:
        if folder := os.environ.get(PICTURES):
            tab.evaluate("() => scrollTo(0, 0)")
            tab.wait_for_timeout(2000)  # until the last small picture is there
            path = Path(folder, f"{name}-{screen}.jpg")
            tab.screenshot(path=path, type="jpeg", quality=80)

    tab.goto(url)
    tab.set_input_files("#files", files)
    tab.get_by_text(f"{len(files)} of {len(files)} images judged").wait_for()
    tab.locator("#layer").wait_for()
    tab.get_by_role("button", name="Find similar defects").click()
    tab.locator("#vote", has_text=re.compile("Looks|no known type|Nothing")).wait_for()
    picture("inspect")
    tab.locator("#images button").last.press("Enter")
    tab.locator("#layer").wait_for()
    assert (tab.locator("#verdict").inner_text() == "anomalous") == (
        float(tab.locator("#confidence").inner_text()) > 0.5
    )
    tab.locator("#opacity").fill("40")
    assert tab.locator("#layer").evaluate("layer => layer.style.opacity") == "0.4"
    assert violations(tab) == []

    tab.get_by_role("link", name="Evaluation").click()
    tab.locator("#false-alarms img").or_(tab.get_by_text("none").first).first.wait_for()
    picture("evaluation")
    alarms = int(tab.locator("#false-alarm").inner_text())
    hits = int(tab.locator("#hit").inner_text())
    assert alarms + int(tab.locator("#true-normal").inner_text()) == normals
    tab.locator("#threshold").press("Home")  # all are anomalous
    assert tab.locator("#true-normal").inner_text() == "0"
    assert int(tab.locator("#hit").inner_text()) >= hits
    tab.locator("#reset").click()
    assert tab.locator("#false-alarm").inner_text() == str(alarms)
    assert violations(tab) == []
    for part in ("Decisions", "Cameras", "API"):
        tab.get_by_role("link", name=part).click()
        assert violations(tab) == []
    assert {request.split("/")[2] for request in asked if request.startswith("http")} == {
        url.split("/")[2]
    }
    assert wrong == []
    context.close()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Yield the browser; skips where an extra or the browser itself is missing."""
    for extra in ("fastapi", "qdrant_client"):
        pytest.importorskip(extra)
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_the_page_of_the_default_pipeline_is_as_the_readme_shows_it(tmp_path: Path) -> None:
    """PatchCore on the sample clip; writes the README's pictures into BLACKSWAN_SCREENSHOTS."""
    if PICTURES not in os.environ:
        pytest.skip(f"{PICTURES} names no folder for the pictures")
    table = pd.read_parquet(ROOT / "data/scores/patchcore/scores.parquet")
    worst = table.sort_values("image_score", ascending=False)
    kinds = ("cut_paste", "salt_and_pepper", "perlin_texture")
    found = [worst[worst.defect == kind].path.head(2) for kind in kinds]
    chosen = pd.concat([*found, table[table.label == 0].path.head(3)])
    memory = str(tmp_path / "memory")
    with chromium() as browser:
        words = ["index", "data/defects", "--memory", memory]
        subprocess.run([COMMAND, *words], cwd=ROOT, check=True)
        with served(ROOT, "patchcore", "--memory", memory) as url:
            for screen in SCREENS:
                files = [str(ROOT / "data" / path) for path in chosen]
                look_around(browser, url, files, int((table.label == 0).sum()), screen)


def test_a_person_decides_in_a_browser_and_the_next_run_learns(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PICTURES, raising=False)
    index = pd.read_csv(project / "data/labels.csv", keep_default_na=False)
    test = index[(index.split == "test") & (index.label == "normal")].image.tolist()
    images = [*test[:3], *index[index.defect == "salt_and_pepper"].image[:2]]
    files = [str(project / "data" / image) for image in images]
    dvc(project, "repro", "embed_defects")
    subprocess.run([COMMAND, "index", "data/defects"], cwd=project, check=True)
    corner = {"width": 32, "height": 32, "ignore": [[[0, 0], [8, 0], [0, 8]]]}
    (project / "regions.json").write_text(json.dumps({"cameras": {"line1": corner}}))
    words = ("--decisions", "kept", "--memory", "memory", "--ignore", "regions.json")
    with chromium() as browser, served(project, "padim", *words) as url:
        for screen in SCREENS:
            look_around(browser, url, files, len(test), screen)

        tab = browser.new_page()
        tab.route("**/v1/detectors", lambda route: route.abort(), times=1)
        tab.goto(url)  # while the service does not answer
        tab.get_by_text("the service does not answer").wait_for()
        tab.get_by_label("Camera", exact=True).fill("line1")
        tab.set_input_files("#files", files[:1])
        tab.locator("#ignored polygon").wait_for()

        tab, held = browser.new_page(), []
        tab.route("**/v1/detectors", lambda route: held.append(route), times=1)
        with tab.expect_request("**/v1/detectors"):
            tab.goto(url)
        tab.get_by_label("Your name").fill("anna")
        tab.get_by_label("Camera", exact=True).fill("line1")
        tab.set_input_files("#files", files[:1])  # a normal image, before the cameras are known
        held[0].continue_()
        tab.locator("#ignored polygon").wait_for()
        assert tab.locator("#ignored polygon").get_attribute("points") == "0.5,0.5 8.5,0.5 0.5,8.5"
        tab.get_by_text("Grey does not count: regions of line1.").wait_for()
        tab.get_by_role("radio", name="anomalous").check()
        tab.get_by_label("Type of defect").fill("hole")
        tab.get_by_role("button", name="Keep the decision").click()
        tab.get_by_text("Kept: anomalous (hole)").wait_for()
        tab.get_by_text(re.compile("It (joined|did not join) the memory")).wait_for()
        tab.reload()
        tab.get_by_role("link", name="Decisions").click()
        tab.get_by_role("cell", name="hole").wait_for()
    subprocess.run([COMMAND, "decisions", "export", "kept"], cwd=project, check=True)
    assert "label" in stages_run(dvc(project, "repro", "label"))
    labels = pd.read_csv(project / "data/labels.csv", keep_default_na=False).set_index("image")
    assert labels.loc[images[0], ["label", "defect"]].tolist() == ["anomalous", "hole"]


def test_the_vit_and_its_threshold_never_see_the_test_split(project: Path) -> None:
    """Noise for every test image: the model and what validation gives keep every byte."""
    judged = project / "metrics/detectors/vit.json"
    before = {path: path.read_bytes() for path in sorted((project / "data/models").rglob("*.*"))}
    metrics = json.loads(judged.read_text())
    rng = np.random.default_rng(0)
    noisy = [
        replace(row, image=encode_png(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)))
        for row in Split(project / "data/dataset", "test")
    ]
    shutil.rmtree(project / "data/models/vit")
    write_shards(project / "data/dataset", "test", noisy, 20)
    for words in (["stages/train_vit.py"], ["stages/evaluate_detector.py", "vit"]):
        subprocess.run([sys.executable, *words], cwd=project, check=True)
    assert {path: path.read_bytes() for path in before} == before
    again = json.loads(judged.read_text())
    for key in ("threshold", "heatmap", "threshold_from"):
        assert again[key] == metrics[key]
    assert again["normal_score_mean"] != metrics["normal_score_mean"]
