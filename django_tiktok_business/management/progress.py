"""A progress bar for commands, if there is somebody to see it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(
    total: Callable[[], int], *, unit: str, is_wanted: bool = True
) -> Iterator[Callable[[], None]]:
    """A function to call after each of ``total()`` units; it draws a bar on a terminal's stderr.

    Draws nothing, and does not ask for the total, without a terminal or the extra ``progress``.
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
