"""What runs in a process that prepares tiles; imports only what the work itself needs."""

import pickle
import sys
from collections.abc import Callable

_function: Callable[[int], object]


def begin(function: bytes) -> None:
    """Take the function of all calls to come, pickled."""
    global _function
    _function = pickle.loads(function)
    if "torch" in sys.modules:  # one core a process
        sys.modules["torch"].set_num_threads(1)


def call(item: int) -> bytes:
    """The pickled result; tensors would need shared memory, of which containers have little."""
    return pickle.dumps(_function(item))
