"""A command that ends, with all that came of it, when whoever started it ends.

    python -m fracsurv.pipeline.process_group [--interrupt] COMMAND …

Standard input must be a pipe whose other end the caller alone holds, and this process the first of a process group.
A killed caller cannot stop what it started; but the system closes its end of the pipe, and this process then stops
the group. With `--interrupt` the command alone is first sent what Ctrl-C sends: Snakemake then takes its jobs back
from the cluster.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

GRACE_SECONDS = 20
LOOKS_EVERY_S = 0.2


def stop(process: subprocess.Popen, interrupt: bool) -> None:
    """Stop a child and then everything in this process group, this process too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is meant for the others
    if interrupt:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    # Snakemake waits for its jobs when it is to end, therefore they get the signal too
    os.killpg(os.getpgrp(), signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> None:
    """Run the command line's command; ends with its exit code."""
    interrupt = sys.argv[1] == "--interrupt"
    # who was started in the background ignores Ctrl-C, and so would the command
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # with whatever files this process was handed: the lock of the run's folder
    process = subprocess.Popen(sys.argv[1 + interrupt :], stdin=subprocess.DEVNULL, close_fds=False)
    while process.poll() is None:
        if select.select([sys.stdin], [], [], LOOKS_EVERY_S)[0]:
            stop(process, interrupt)
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
