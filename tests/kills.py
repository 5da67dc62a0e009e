"""Kill a function at each of its file operations: in forked children, so that a kill is a kill."""

import os
import signal
import sys
import traceback
from collections.abc import Callable

OPERATIONS = ("mkdir", "rename", "replace", "rmdir", "unlink")


def run_forked(function: Callable[[], object]) -> int:
    """Run `function` in a child; return its exit code, negative for a signal."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            function()
        except SystemExit as ended:
            os._exit(ended.code)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(number: int, function: Callable[[], object]) -> bool:
    """Kill `function` as it begins its file operation of that number; tell whether it got there."""

    def counted() -> None:
        begun = 0

        def counting(operation: Callable) -> Callable:
            def called(*arguments: object, **keywords: object) -> object:
                nonlocal begun
                begun += 1
                if begun == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*arguments, **keywords)

            return called

        for name in OPERATIONS:
            setattr(os, name, counting(getattr(os, name)))
        function()

    code = run_forked(counted)
    assert code in (0, -signal.SIGKILL)
    return code != 0
