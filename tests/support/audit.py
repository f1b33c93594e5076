"""``pip-audit --format json | python -m tests.support.audit``: fails on known holes.

What the environment has installed is looked up at the package index. Where that cannot be reached,
or has no advisories, it says so and passes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

__all__ = ["main", "verdict"]


def verdict(text: str) -> tuple[int, list[str]]:
    """Return the exit status, and lines for the output of the build."""
    packages: list[dict[str, Any]] = json.loads(text)["dependencies"] if text.strip() else []
    skipped = sorted(package["name"] for package in packages if "skip_reason" in package)
    if len(skipped) == len(packages):
        return 0, ["Nothing was audited: no package index that knows of holes can be reached."]
    holes = [
        f"{package['name']} {package['version']}: {hole['id']}, mended in "
        f"{', '.join(hole['fix_versions']) or 'no version yet'}"
        for package in packages
        for hole in package.get("vulns", [])
    ]
    lines = [f"{len(packages) - len(skipped)} packages were audited, {len(holes)} holes found."]
    if skipped:
        lines.append(f"Not audited, because the index does not know them: {', '.join(skipped)}.")
    return int(bool(holes)), [*lines, *holes]


def main() -> None:
    status, lines = verdict(sys.stdin.read())
    sys.stdout.writelines(f"audit: {line}\n" for line in lines)
    sys.exit(status)


if __name__ == "__main__":
    main()
