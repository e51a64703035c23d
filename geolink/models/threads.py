"""How many CPU threads torch computes on, since sums round differently with their number."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def on_threads(count: int) -> Iterator[int]:
    """Lets torch compute every operation on so many threads; gives the number it had before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def each_alone_on_cpu(
    function: Callable[[Sequence[Item]], Result], items: Sequence[Item], device: torch.device
) -> list[Result]:
    """What a function that runs a model makes of items: of all at once, or on CPU of each alone.

    On CPU every item goes through the model alone, one core an item: batches of another shape and
    operations on another number of threads round differently, and a result must depend on neither.
    """
    if device.type != "cpu":
        return [function(items)]
    with on_threads(1) as cores, ThreadPoolExecutor(cores) as pool:
        return list(pool.map(function, ([item] for item in items)))
