"""What was measured: `store` writes and verifies it, `table` reads it."""

from pretune.records.store import described, finished, record_folder, unchanging, write_record
from pretune.records.table import load, load_texts, passed_over, provenance, training_log

__all__ = [
    "described",
    "finished",
    "load",
    "load_texts",
    "passed_over",
    "provenance",
    "record_folder",
    "training_log",
    "unchanging",
    "write_record",
]
