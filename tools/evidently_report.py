"""Render a log of `blackswan serve --log` as a page of Evidently: `make evidently LOG=monitoring`.

Evidently does not work with the pandas of this repository, so this script runs in an environment of
its own (tools/evidently.txt) and imports nothing else of it. The reference is that of the log.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

MOST = 20_000  # answers, the newest; the part that goes beyond is read whole


def versions(log: Path) -> list[Path]:
    """List the folders of a log, one a version; the version that answered last comes last."""
    newest = {folder: max(folder.glob("[0-9]*.parquet"), default=None) for folder in log.glob("*/")}
    named = {folder: part.name for folder, part in newest.items() if part is not None}
    return sorted(named, key=lambda folder: named[folder])


def columns_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return the score and a column for each component of the embedding."""
    columns = pd.DataFrame({"image_score": table.image_score.to_numpy()})
    if table.embedding.notna().all():
        embeddings = pd.DataFrame(table.embedding.tolist())
        columns = columns.join(embeddings.add_prefix("component_"))
    return columns


def read(version: Path, camera: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return reference and log of a version."""
    reference = version / "reference/reference.parquet"
    if not reference.exists():
        sys.exit(f"error: {reference} is missing; `blackswan serve --log` writes it")
    chosen = None if camera is None else [("camera", "==", camera)]
    parts, count = [], 0
    for path in sorted(version.glob("[0-9]*.parquet"), reverse=True):
        parts.append(pq.read_table(path, columns=["image_score", "embedding"], filters=chosen))
        count += parts[-1].num_rows
        if count >= MOST:
            break
    if not count:
        sys.exit(f"error: {version} holds no answer of camera {camera!r}; choose another")
    answers = pa.concat_tables(parts[::-1])
    return columns_of(pq.read_table(reference).to_pandas()), columns_of(answers.to_pandas())


def main() -> None:
    """Compare the newest version of a log with its reference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, default=Path("evidently.html"))
    parser.add_argument("--camera")
    given = parser.parse_args()
    found = versions(given.log)
    if not found:
        sys.exit(f"error: {given.log} holds no answer; name the folder of `blackswan serve --log`")
    reference, answers = read(found[-1], given.camera)
    shared = [name for name in reference if name in answers]

    from evidently import Report  # seconds to import
    from evidently.presets import DataDriftPreset

    report = Report([DataDriftPreset()])
    report.run(answers[shared], reference[shared]).save_html(str(given.out))
    print(f"{len(answers)} answers of {found[-1].name} against {len(reference)}; see {given.out}")


if __name__ == "__main__":
    main()
