"""What `fracsurv check` says of every broken or malicious cohort of the corpus, how long it takes, in what memory.

    python -m benchmarks.hostile

Each case of `tests/hostile_all.py` in its own process. Prints a Markdown table (case, exit code, first words,
seconds, peak MiB) and writes `benchmarks/results/hostile.json`; exits with 1 if a case ends otherwise than it must,
shows a traceback, or takes more than 5 s or 1 GB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.detection import RESULTS
from fracsurv.utils.files import write_json
from tests.hostile_all import CASES, sound

LONGEST, MOST = 5.0, 1024.0
# the process itself says how much it took at most: what the system tells of a child counts its parent's memory, too
PROGRAM = """
from fracsurv.cli import main
try:
    main()
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main() -> None:
    found = []
    print("| case | exit | what is said | seconds | MiB |\n|---|---|---|---|---|")
    for case in CASES:
        with tempfile.TemporaryDirectory() as place:
            folder = sound(Path(place) / "cohort")
            case.change(folder)
            result = _called(folder)
        said = next((line for line in result.pop("lines") if case.says in line), "")
        result |= {"case": case.name, "right": result["code"] == case.code and said != ""}
        found.append(result)
        shown = said.replace(str(folder), "COHORT").replace("|", "\\|").removeprefix("error: ")
        shown = shown if len(shown) <= 110 else shown[:110] + "…"
        print(
            f"| {case.name} | {result['code']} | {shown} | {result['seconds']:.1f} | {result['mib']:.0f} |",
            flush=True,
        )
    wrong = [each["case"] for each in found if not each["right"] or each["traceback"]]
    slow = [each["case"] for each in found if each["seconds"] > LONGEST or each["mib"] > MOST]
    longest, most = max(each["seconds"] for each in found), max(each["mib"] for each in found)
    print(f"\n{len(found)} cases; wrong: {wrong or 'none'}; too slow or large: {slow or 'none'}")
    print(f"at most {longest:.1f} s, {most:.0f} MiB")
    write_json(RESULTS / "hostile.json", {"cases": found})
    sys.exit(bool(wrong or slow))


def _called(folder: Path) -> dict:
    """Exit code, seconds, peak memory and lines of one call."""
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "check", folder],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    lines = result.stdout.replace("\r", "\n").splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return {
        "code": result.returncode, "seconds": seconds, "mib": int(peak.split()[1]) / 1024,
        "traceback": "Traceback" in result.stdout, "lines": lines,
    }  # fmt: skip


if __name__ == "__main__":
    main()
