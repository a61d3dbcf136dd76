"""Execute a notebook of a run, and keep no path of the computer that did: see the Snakefile."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import papermill
import typer
from ipykernel.kernelspec import make_ipkernel_cmd
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError

from fracsurv.config import ROOT
from fracsurv.utils.environment import isolation
from fracsurv.utils.errors import FULL_DISK, UserError, run_command
from fracsurv.utils.files import write_text


class ThisPython(AsyncKernelManager):
    """A notebook's kernel: this Python, whatever Jupyter knows as `python3` here."""

    kernel_spec = KernelSpec(argv=make_ipkernel_cmd(), language="python")


def execute(
    source: Annotated[Path, typer.Argument(help="The notebook.")],
    output: Annotated[Path, typer.Argument(help="Where it goes, executed.")],
    cohort: Annotated[Path, typer.Option()],
    profile: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option()],
    experiment: Annotated[str, typer.Option()] = "",
) -> None:
    """Execute a notebook of a run, as `execute_notebook` does."""
    parameters = {"cohort": str(cohort), "profile": profile, "out": str(out)}
    parameters |= {"experiment": experiment} if experiment else {}
    folders = [cohort, out] + ([Path(profile).parent] if Path(profile).exists() else [])
    execute_notebook(source, output, parameters, folders)


@isolation()
def execute_notebook(
    source: Path,
    output: Path,
    parameters: Mapping[str, object],
    folders: Sequence[Path],
    *,
    place: Path = ROOT / "notebooks",
) -> None:
    """Execute a notebook with these parameters; of folders of this computer only the last names stay in it.

    Of the `folders` given, of the repository, of Python's and of home: warnings name the file that they come from.
    A notebook that ends in an error, with its traceback, is kept likewise.

    Parameters
    ----------
    place : path
        Working directory of its cells.

    Raises
    ------
    UserError
        For a notebook that is not there, and where a cell ended in one.
    """
    if not source.exists():
        raise UserError(f"{source}: no such notebook")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    hidden = [*folders, output.parent, source.parent, ROOT, Path(sys.prefix), Path(sys.base_prefix), Path.home()]
    try:
        papermill.execute_notebook(
            source, output, dict(parameters), cwd=str(place), progress_bar=False, kernel_manager_class=ThisPython,
            extra_arguments=["--log-level=ERROR"],  # a kernel warns that it is reached by TCP
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        if error.ename == UserError.__name__:
            raise UserError(error.evalue.split("\n")) from None
        raise (_full_disk(error) or error) from None
    except DeadKernelError:
        raise UserError(f"{source.name}: the system ended its kernel (for memory, perhaps)") from None
    finally:
        if output.exists():
            write_text(output, without_paths(output.read_text(encoding="utf-8"), hidden))


def _full_disk(error: papermill.PapermillExecutionError) -> OSError | None:
    """The error of a disk that was full when a notebook's cell wrote to it; None for another."""
    found = re.fullmatch(r"\[Errno (\d+)\] (.*?)(?:: '(.*)')?", error.evalue) if error.ename == "OSError" else None
    if not found or int(found[1]) not in FULL_DISK:
        return None
    return OSError(int(found[1]), found[2], found[3])


def without_paths(text: str, folders: list[Path]) -> str:
    """A notebook's JSON in which these folders, as given and as they are resolved, are their last names (home: ~)."""
    homes = {Path.home(), Path.home().resolve()}
    names = {
        str(form): "~" if form in homes else folder.resolve().name
        for folder in folders
        for form in (folder.resolve(), folder.absolute())
        if form.name
    }
    for path in sorted(names, key=len, reverse=True):  # a folder within another goes first
        # as a string of the JSON, and as one of Python code in a string of the JSON
        for times, ascii_alone in product((2, 1), (True, False)):
            written, name = (_escaped(each, times, ascii_alone) for each in (path, names[path]))
            # whole paths alone: /png is not the end of image/png, nor /data the beginning of /data2; in a traceback
            # a colour's code, which ends in a number and m, may stand before one
            whole = rf"(?:(?<![\w.-])|(?<=\dm)){re.escape(written)}(?![\w.-])"
            text = re.sub(whole, lambda _, name=name: name, text)
    return text


def _escaped(text: str, times: int, ascii_alone: bool) -> str:
    for _ in range(times):
        text = json.dumps(text, ensure_ascii=ascii_alone)[1:-1]
    return text


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(execute)
    run_command(app)
