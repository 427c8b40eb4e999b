"""How a person goes on after a command broke off: errors end with words that fit the command that was started."""

from __future__ import annotations

from dataclasses import dataclass

RESUME = "go on with the same command and --resume"
START_AGAIN = "start the same command again"


@dataclass(frozen=True, kw_only=True)
class WayOn:
    """The command that a person started, such as `unlearn distill`, and what the person can do after it broke off.

    Args:
        again: after an interruption, or once the cause of an error is gone.
        anew: if what the command has kept on disk cannot be used.
        replaces: whether the command can replace an earlier result, with --overwrite.
        resumes: whether it has --resume.
    """

    command: str
    again: str = RESUME
    anew: str = "start the run again with --overwrite"
    replaces: bool = True
    resumes: bool = True

    @property
    def past_files(self) -> str:
        """The ways past files of an earlier run in --out."""
        ways = ["go on with --resume"] * self.resumes + ["replace them with --overwrite"] * self.replaces
        return ", ".join([*ways, "or choose another --out"]) if ways else "choose another --out"
