"""`scripts/fuzz`: many mutated inputs for every reader, a table, and the inputs that failed."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import click
import torch

from synth.checkpoint.file import load_checkpoint, save_checkpoint
from synth.shards.plan import Plan
from tests.fuzzing.campaign import Campaign, Tally
from tests.fuzzing.readers import readers
from tests.runs import QUICKEST, digits_card, make_run, recipe_for, train_on_digits
from tests.unlearn.auditing.subjects import audit_of_models, train_models
from unlearn.report.write import write_report


@click.command()
@click.option("--inputs", type=click.IntRange(min=1), default=100_000, show_default=True, help="number of inputs")
@click.option("--seed", type=int, default=0, show_default=True, help="random seed of the inputs")
@click.option("--first", type=int, default=0, help="number of the first input, to read one again")
@click.option("--minutes", type=float, default=math.inf, help="end after these minutes  [default: no limit]")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, help="inputs read at once")
@click.option("--reader", "only", multiple=True, help="only these readers  [default: all]")
@click.option(
    "--material", type=click.Path(path_type=Path), help="folder that keeps the valid files, to make them once"
)
@click.option("--kept", type=click.Path(path_type=Path), default="fuzz-failures", help="folder for the failing inputs")
def main(
    inputs: int,
    seed: int,
    first: int,
    minutes: float,
    processes: int,
    only: tuple[str, ...],
    kept: Path,
    material: Path | None,
) -> None:
    """Give mutated files to every reader of files from elsewhere.

    Each input must be read or refused with one line, within a second of the processor, with less than 1 GB of memory
    more, without a change outside of its folder, and without a program that it starts.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of torch, about forms of tensors that it calls unfinished
    os.environ["UNLEARN_CACHE"] = ""
    with tempfile.TemporaryDirectory() as temporary:
        found = make_readers(material or Path(temporary))
        chosen = [reader for reader in found if not only or reader.name in only]
        started = time.monotonic()
        numbers = range(first, first + inputs)
        parts = [Campaign(chosen, seed, Path(temporary) / f"scratch-{n}", kept) for n in range(processes)]
        with multiprocessing.pool.ThreadPool(processes) as pool:
            pool.starmap(lambda n, part: part.run(numbers[n::processes], report, 60 * minutes), list(enumerate(parts)))
        whole = parts[0]
        for part in parts[1:]:
            whole.merge(part)
        read = sum(tally.inputs for tally in whole.tallies.values())
        click.echo(f"{read:,} inputs of seed {seed} in {time.monotonic() - started:,.0f} s\n")
        click.echo(table(whole.tallies))
        for line in whole.faults:
            click.echo(f"fault: {line}")
        sys.exit(bool(whole.faults))


def report(line: str) -> None:
    click.echo(line, err=True)


def make_readers(folder: Path) -> list:  # type: ignore[type-arg]
    """The readers, with valid files made in `folder`."""
    teacher, run, audited, page = (folder / name for name in ("teacher.safetensors", "run", "audit", "page.html"))
    if not page.exists():
        save_checkpoint(train_on_digits(digits_card(), steps=20), teacher)
        plan = Plan(classes=tuple(range(10)), per_class=1, views=1, shard_size=3)
        make_run(run, recipe_for(load_checkpoint(teacher), QUICKEST), plan)
        audit_of_models(train_models(folder / "models"), audited)
        write_report(audited, page)
    return readers(teacher, run, audited, page)


def table(tallies: dict[str, Tally]) -> str:
    """A line per reader, in Markdown."""
    lines = ["| reader | inputs | read | refused | faults | per second | slowest | memory |", "|---|" + "---:|" * 7]
    for name, t in tallies.items():
        wrong = sum(map(len, t.faults.values()))
        rate = t.inputs / t.seconds if t.seconds else 0
        read = t.inputs - t.refused - wrong
        lines.append(
            f"| {name} | {t.inputs:,} | {read:,} | {t.refused:,} | {wrong} | {rate:,.0f} | {t.slowest:.2f} s "
            f"| {t.memory / 2**20:,.0f} MiB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
