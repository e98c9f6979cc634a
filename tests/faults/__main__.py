"""What `make faults` runs: every row of the groups done so far, with a count as the last line."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.faults.bed.table import TITLES, row_file


class Tally:
    """Which cases of which row passed, as pytest reports them."""

    def __init__(self) -> None:
        self.cases: defaultdict[int, dict[str, bool]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a case's result; what goes wrong before or after it counts as well. One that was skipped did not run."""
        match = re.search(r"\[(\d{3})-(.+)\]\Z", report.nodeid)
        if match is not None and not report.skipped:
            cases = self.cases[int(match[1])]
            cases[match[2]] = cases.get(match[2], True) and report.passed

    def lines(self) -> tuple[list[str], int]:
        """Give a line for each row that is missing or does not pass, and how many do pass."""
        said, passed = [], 0
        for group, titles in TITLES.items():
            for number, title in titles.items():
                cases = self.cases[number]
                failed = sum(not well for well in cases.values())
                if not cases:
                    state = "no case ran" if row_file(group, number) else "is missing"
                    said.append(f"{group} {number:3d} {title}: {state}")
                elif failed:
                    said.append(f"{group} {number:3d} {title}: {failed} of {len(cases)} cases fail")
                passed += bool(cases) and not failed
        return said, passed


def main() -> int:
    """Run the rows; 0 if all pass."""
    tally = Tally()
    pytest.main(
        [str(Path(__file__).with_name("test_rows.py")), "-q", "--no-header", "--tb=short", "-r", "N"], plugins=[tally]
    )
    said, passed = tally.lines()
    rows = sum(map(len, TITLES.values()))
    print("\n".join([*said, f"faults: {passed} of {rows} rows pass"]))  # noqa: T201 what the command is for
    return int(passed != rows)


if __name__ == "__main__":
    sys.exit(main())
