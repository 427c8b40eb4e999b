"""`unlearn ...`: the group of commands. torch is loaded by the commands that need it; ray never is."""

from __future__ import annotations

import click

from synth.commands.console import Console
from unlearn.commands.auditing import audit
from unlearn.commands.exporting import export
from unlearn.commands.models import evaluate, import_, train
from unlearn.commands.options import FROM_ENVIRONMENT
from unlearn.commands.reporting import replay, report, verify
from unlearn.commands.sweeping import sweep
from unlearn.commands.unlearning import COMMANDS


@click.group(cls=Console, context_settings=FROM_ENVIRONMENT)
@click.version_option(package_name="data-free-unlearning")
def main() -> None:
    """Make a trained classifier forget classes, without its training data, and show what is left of them.

    Every option can also come from the environment: UNLEARN_DATA sets --data, and so on (UNLEARN_REPORT_OUT and
    UNLEARN_REPLAY_OUT set the --out of report and replay).
    """


for command in (train, import_, export, *COMMANDS.values(), evaluate, audit, report, verify, replay, sweep):
    main.add_command(command)
