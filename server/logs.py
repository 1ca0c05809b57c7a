"""Logs as JSON lines on stderr: one object a line, texts of clients never among them."""

from __future__ import annotations

import json
import logging
import time
from typing import IO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """A record and the fields of its `extra` as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD and v is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(stream: IO[str], *, level: int = logging.INFO) -> None:
    """Send the logs of the service and of uvicorn to `stream`. For processes, not for libraries."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    for name in ("server", "nps_store", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level if name != "uvicorn" else max(level, logging.WARNING))
