"""The state file: keeps the simulator's state across restarts, readable by its owner only."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KIND = "tiktok-simulator-state"
_VERSION = 1


class StateFileError(Exception):
    """The state file cannot be read, written or understood; it is unchanged."""


def load_state(path: Path) -> dict[str, Any] | None:
    """Return the stored state, or None if there is no file yet."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StateFileError(f"cannot read the state file {path}: {error}") from error
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise StateFileError(f"{path} is not a state file of the TikTok simulator")
    if document.get("version") != _VERSION:
        raise StateFileError(f"{path} was written by another version of the simulator")
    return document


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the file atomically: a reader or a crash sees the old or the new one, never half."""
    document = {"kind": _KIND, "version": _VERSION, **state}
    try:
        # mkstemp creates the file with mode 0600, because it holds live tokens.
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(document, stream, indent=1)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise StateFileError(f"cannot write the state file {path}: {error}") from error
