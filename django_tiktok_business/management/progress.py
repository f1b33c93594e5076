"""A progress bar for commands that run on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    total: Callable[[], int], *, unit: str, is_wanted: bool = True
) -> Iterator[Callable[[], None]]:
    """Yield a function that advances a progress bar by one of ``total()`` units.

    The bar is drawn on stderr. Without a terminal, or without the extra ``progress``, nothing is
    drawn and ``total`` is not called.
    """
    if not is_wanted or not sys.stderr.isatty():
        yield lambda: None
        return
    try:
        from tqdm import tqdm
    except ImportError:  # the extra is not installed
        yield lambda: None
        return
    with tqdm(total=total(), unit=unit) as bar:

        def advance() -> None:
            bar.update()

        yield advance
