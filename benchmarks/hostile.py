"""What `fracsurv check` says of every broken or malicious cohort of the corpus, how long it takes, in what memory.

    python -m benchmarks.hostile

Each case of `tests/hostile.py` in its own process. Prints a Markdown table (case, exit code, first words,
seconds, peak MiB) and writes `benchmarks/results/hostile.json`; exits with 1 if a case ends otherwise than it must,
shows a traceback, or takes more than 5 s or 1 GB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.detection import RESULTS
from fracsurv.files import write_json
from tests.hostile import CASES, sound

LONGEST, MOST = 5.0, 1024.0
PROGRAM = [sys.executable, "-c", "from fracsurv.cli import main; main()", "check"]


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
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        start = time.perf_counter()
        process = subprocess.Popen([*PROGRAM, folder], stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    return {
        "code": process.returncode, "seconds": seconds, "mib": used.ru_maxrss / 1024,
        "traceback": "Traceback" in text, "lines": text.replace("\r", "\n").splitlines(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
