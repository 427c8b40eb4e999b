"""Structured logs: one JSON object per line on stderr, each with its run, and with its shard if it is about one."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, TextIO

PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Formats a log record, with all its extra fields, as one JSON object."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "run": self.run,
            "event": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in PLAIN and key[0] != "_"},
        }
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)
        return json.dumps(facts, default=str)


def configure_log(level: str, run: str, stream: TextIO | None = None) -> None:
    """Send the log lines of `synth` at `level` and above to `stream`, which is stderr by default.

    The level `off` sends none.
    """
    logger = logging.getLogger("synth")
    logger.handlers.clear()
    logger.propagate = False
    if level == "off":
        logger.addHandler(logging.NullHandler())
        return
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(run))
    logger.addHandler(handler)
    logger.setLevel(level.upper())
