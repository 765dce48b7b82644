"""The one exception that means "something you gave is wrong": it ends a command with one sentence and exit code 2."""

import sys
from collections.abc import Callable

_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the signal's number, as shells have it."""


class BadInput(ValueError):
    """Bad input from outside: a file, a recipe, a folder, a machine that cannot do it.

    The message is one sentence: what is wrong, where, which rule it breaks, what to do about it. Anything else that is
    raised is a bug of ours and keeps its traceback.
    """


def run(command: Callable[[], object]) -> None:
    """Call a command line application; end with exit code 2 and one sentence on `BadInput`, 130 on Ctrl-C."""
    try:
        command()
    except BadInput as error:
        print(f"glyphmill: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        # Typer turns Ctrl-C into a silent exit with 130 itself.
        if isinstance(end, KeyboardInterrupt) or end.code == _INTERRUPTED:
            print("glyphmill: interrupted; what is finished is kept, the same command goes on", file=sys.stderr)
            sys.exit(_INTERRUPTED)
        raise
