"""Work that a process does not survive; imported by the processes, so without imports."""

import os


def deadly(item: int) -> int:
    """Twice the item, unless that is 1."""
    if item == 1:
        os._exit(1)
    return 2 * item
