"""The golden files and how to make them again: `python tests/report/golden_files.py` from the repository root.

Read the difference before committing it: each changed line is a line that users see change.
"""

import io
from pathlib import Path

import report_records
from rich.console import Console

from genbench.report.document import to_json
from genbench.report.frame import to_csv
from genbench.report.latex import to_latex
from genbench.report.leaderboard import leaderboard
from genbench.report.markdown import to_markdown
from genbench.report.terminal import print_leaderboards

GOLDEN = Path(__file__).parent / "golden"


def terminal(boards, width):
    """What a terminal without colour shows."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False, legacy_windows=False)
    print_leaderboards(boards, console)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


FILES = {
    "leaderboard.md": lambda records: to_markdown(leaderboard(records)),
    "leaderboard.tex": lambda records: to_latex(leaderboard(records)),
    "leaderboard.json": lambda records: to_json(leaderboard(records)),
    "scores.csv": to_csv,
    "terminal-120.txt": lambda records: terminal(leaderboard(records), 120),
    "terminal-80.txt": lambda records: terminal(leaderboard(records), 80),
}

if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, render in FILES.items():
        (GOLDEN / name).write_text(render(report_records.run()), encoding="utf-8")
