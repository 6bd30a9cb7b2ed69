"""Where the measuring material lies: `../shared/data` beside the project."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
