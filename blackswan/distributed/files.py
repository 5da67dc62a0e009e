"""Files below a folder or URL and their bytes: by Spark's `binaryFile`, by path, or by fsspec.

Spark lists and reads what Hadoop has a driver for. It passes over names that begin with a dot or
an underscore, and fails where one has a colon: there, and where a file is too large for a batch, a
task reads by path. fsspec reads what Hadoop has no driver for.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from blackswan.data.files import tell
from blackswan.data.rows import File
from blackswan.errors import InputError, cause

SHOWN = 3  # names in a line
NO_DRIVER = ("UnsupportedFileSystemException", "ClassNotFoundException")


class UnreachableError(Exception):
    """A store that does not answer: no fault of an image, so it ends the run."""


@dataclass(frozen=True)
class Root:
    """Where files lie, and what reads those that Spark did not."""

    place: str  # folder or URL, as errors name it
    otherwise: Literal["path", "fsspec", "nothing"]

    def open(self, name: str, data: bytes | None) -> File:
        """Return a file of a task; raises InputError where it is missing."""
        url = f"{self.place}/{name}"
        if data is None and self.otherwise == "nothing":
            raise InputError(
                f"{url} does not exist, has a name that Spark passes over, or more bytes than "
                "spark.sql.sources.binaryFile.maxLength; check these"
            )
        return File(url, fetch(url) if data is None and self.otherwise == "fsspec" else data)


def root_of(place: str) -> Root:
    """Return the root of a folder or URL; Hadoop is asked for its driver only as it lists."""
    place = place.rstrip("/")
    if place.startswith("file:"):
        place = re.sub("^file:/+", "/", place)
    return Root(place, "nothing" if ":/" in place else "path")


def fetch(url: str) -> bytes:
    """Read a file by fsspec, with the credentials that its library takes from the environment.

    Raises InputError where it is missing and UnreachableError where the store does not answer.
    """
    from fsspec.core import url_to_fs

    try:
        store, path = url_to_fs(url)
        return bytes(store.cat_file(path))
    except FileNotFoundError:
        raise InputError(f"{url} does not exist; check the path") from None
    except ImportError as error:
        raise UnreachableError(f"{url} needs a package ({cause(error)}); install it") from None
    except Exception as error:  # of whatever kind the library of the store raises
        raise UnreachableError(
            f"{url} cannot be read ({cause(error)}); check the network and the credentials in the "
            "environment, run again"
        ) from None


def with_bytes(spark: Any, wanted: Any, place: str, folders: list[str]) -> tuple[Any, Root]:  # noqa: ANN401
    """Add the column `data` to a Spark table by its column `path` below `place`.

    It is null where Root.open has to read or to say why nobody can. Raises InputError where
    `place` has none of the `folders`.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as F

    root = root_of(place)
    whole = root.place if root.otherwise == "nothing" else str(Path(root.place).resolve())
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    try:
        files = reader.load([literal(hadoop_path(f"{whole}/{folder}")) for folder in folders])
    except AnalysisException as error:
        if "PATH_NOT_FOUND" not in (error.getCondition() or ""):
            raise
        raise InputError(
            f"{place} has no folder {' or '.join(folders)}, where the images of data/labels.csv "
            "lie; copy them there, or mend build_dataset.images"
        ) from None
    except Py4JError as error:
        if root.otherwise == "path" or not any(word in str(error) for word in NO_DRIVER):
            raise
        return unread(wanted), Root(root.place, "fsspec")
    name = F.expr("substring(path, locate(inside, path) + length(inside))")
    listed = files.withColumn("inside", F.lit(f"{whole}/")).select(
        name.alias("path"), "length", "content"
    )
    if _check_names(listed, wanted, place):
        readable_by = root.otherwise if root.otherwise == "path" else "fsspec"
        return unread(wanted), replace(root, otherwise=readable_by)
    limit = int(spark.conf.get("spark.sql.sources.binaryFile.maxLength"))
    found = listed.filter(F.col("length") <= limit)
    return wanted.join(found.select("path", F.col("content").alias("data")), "path", "left"), root


def unread(table: Any) -> Any:  # noqa: ANN401
    """Add the column `data` to a Spark table, null: Root.open reads every file."""
    from pyspark.sql import functions as F

    return table.withColumn("data", F.lit(None).cast("binary"))


def _check_names(listed: Any, wanted: Any, place: str) -> bool:  # noqa: ANN401
    """Say which images no label names; return whether a name has a colon."""
    from pyspark.sql import functions as F

    named = wanted.select("path", F.lit(True).alias("labelled")).distinct()
    names = listed.select("path").join(named, "path", "left")
    is_left = F.col("labelled").isNull() & F.col("path").contains("/images/")
    # One pass: a look at each file is what listing costs.
    colons, count = names.agg(F.count_if(F.col("path").contains(":")), F.count_if(is_left)).head()
    if count:
        some = [row.path for row in names.filter(is_left).orderBy("path").limit(SHOWN).collect()]
        tell(
            f"{place}: {count} images have no row in the label table and are left out: "
            f"{', '.join(some)}{', ...' if count > SHOWN else ''}"
        )
    return bool(colons)


def hadoop_path(path: str) -> str:
    """Return what Hadoop calls an absolute path of this machine, whatever its own file system."""
    on_machine = path.startswith("/") and not path.startswith("/Volumes/")  # of Unity Catalog
    return f"file:{path}" if on_machine else path


def literal(path: str) -> str:
    """Return a path in which Hadoop takes no character for a pattern."""
    return re.sub(r"([\\*?\[\]{}])", r"\\\1", path)
