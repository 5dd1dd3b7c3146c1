"""Detects the end of the parent process, even by SIGKILL.

Ctrl-C in a terminal reaches every process of the group. SIGKILL reaches only one process, and its children go on. A
process whose servers must not outlive it sets HEADROOM_PARENT to its own id in their environment.
"""

import os
import sys
from typing import Final

from serving.exceptions import StartError

PARENT: Final = "HEADROOM_PARENT"


def watched_parent() -> int | None:
    """Return a descriptor that becomes readable when the process of HEADROOM_PARENT ends, or None if it is unset.

    Only Linux has such descriptors (pidfd_open(2)); elsewhere the variable has no effect. Raise StartError if the
    process has already ended.
    """
    text = os.environ.get(PARENT, "")
    if not text or sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(int(text))
    except ValueError as error:
        raise StartError(f"{PARENT}={text!r}: expected the id of a process") from error
    except ProcessLookupError as error:
        raise StartError(f"process {text}, which {PARENT} names, has ended") from error
    except OSError:  # a kernel, or a sandbox, without pidfd_open
        return None
