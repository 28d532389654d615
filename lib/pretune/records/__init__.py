"""What was measured: `store` writes and verifies it, `table` reads it."""

from pretune.records.store import finished, record_files, record_folder, write_record
from pretune.records.table import load, load_texts, provenance, training_log

__all__ = [
    "finished",
    "load",
    "load_texts",
    "provenance",
    "record_files",
    "record_folder",
    "training_log",
    "write_record",
]
