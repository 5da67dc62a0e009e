"""What another library or program says reaches no message as it is: it can quote a secret.

`echoes` finds every place where it would; the tests run it on the sources as they are and on
sources with one such place.
"""

import ast

import pytest
from conftest import ROOT

FILES = sorted(
    path.relative_to(ROOT)
    for folder in ("blackswan", "stages", "tools")
    for path in (ROOT / folder).rglob("*.py")
)
CLEANING = {"cause", "without_secrets"}
# Of an error, what holds its text; a number or a path, as `start` and `filename`, may be said.
TALKATIVE = {"args", "message", "msg", "reason", "body", "line", "response", "request", "doc"}
TEXTS = {"str", "repr", "format", "ascii"}


def echoes(source: str) -> list[str]:
    """List the places of `source` that turn an error, or what a program printed, into text."""
    tree = ast.parse(source)
    clean = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in CLEANING
        for inner in ast.walk(node)
    }
    found = []
    for scope, names in _scopes(tree):
        for node in ast.walk(scope):
            if id(node) not in clean and _echoes(node, names):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
    found += [f"line {node.lineno}: a program that prints" for node in ast.walk(tree)
              if _prints(node)]  # fmt: skip
    return sorted(set(found))


def _scopes(tree):
    """Yield the tree and each part of it in which an error has a name, with the names."""
    yield tree, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name and not _is_ours(node.type):
            yield node, {node.name}
        elif isinstance(node, ast.FunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs]
            yield node, {argument.arg for argument in arguments if _is_error(argument.annotation)}


def _is_error(annotation):
    return annotation is not None and ast.unparse(annotation).endswith(("Error", "Exception"))


def _is_ours(kind):
    return isinstance(kind, ast.Name) and kind.id == "InputError"


def _echoes(node, names):
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        return node.value.id in names
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        of_program = node.attr == "stderr" and node.value.id != "sys"
        return of_program or (node.value.id in names and node.attr in TALKATIVE)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in TEXTS:
        return any(isinstance(part, ast.Name) and part.id in names for part in node.args)
    return False


def _prints(node):
    """Tell whether a node starts a program whose output goes to the terminal."""
    if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess.")):
        return False
    given = {keyword.arg for keyword in node.keywords}
    return "capture_output" not in given and not {"stdout", "stderr"} <= given


# Looked into, not shown.
ALLOWED = {
    "blackswan/errors.py": {"str(error)"},  # is the disk full, may a secret be in it
    "blackswan/data/decoding.py": {"str(error)"},  # is the memory full
    "blackswan/distributed/files.py": {"str(error)"},  # has Spark no driver
    "blackswan/distributed/session.py": {"str(error)"},  # what went wrong; cleaned in `explain`
    "tools/cloud.py": {"a program that prints"},  # the commands of this repository
    "tools/remote.py": {"str(error)"},  # the place of a wrong setting, checked to be a name
}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_message_echoes_another_library(file):
    found = {place.split(": ", 1)[1] for place in echoes((ROOT / file).read_text())}
    assert found - ALLOWED.get(file.as_posix(), set()) == set()


@pytest.mark.parametrize(
    "body",
    [
        "raise InputError(f'{error}; mend it')",
        "raise InputError(f'not whole ({error!r})')",
        "sys.exit('error: ' + str(error))",
        "print(repr(error))",
        "print(f'{error.args}')",
        "reason = str(error).splitlines()[0]",
    ],
)
def test_an_echo_is_found(body):
    source = f"try:\n    work()\nexcept OSError as error:\n    {body}\n"
    assert len(echoes(source)) == 1
    assert len(echoes(f"def said(error: Exception) -> str:\n    {body}\n")) == 1
    assert echoes(source.replace("OSError", "InputError")) == []
    assert (
        echoes("try:\n    work()\nexcept OSError as error:\n    print(f'{cause(error)}')\n") == []
    )


def test_the_output_of_a_program_is_found():
    assert len(echoes("done = subprocess.run(['pip'])\n")) == 1
    quiet = "done = subprocess.run(['pip'], capture_output=True)\n"
    assert echoes(quiet) == []
    assert len(echoes(f"{quiet}raise InputError(f'pip: {{done.stderr}}')\n")) == 1
    assert len(echoes(f"{quiet}last = done.stderr.splitlines()[-1]\n")) == 1
    assert echoes(f"{quiet}said = without_secrets(done.stderr, 'no words')\n") == []
