"""Where the checkout is, and the recorded outputs of the official code."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
EXAMPLES = CHECKOUT / "examples"
GOLDEN = Path(os.environ.get("LISA_GOLDEN", CHECKOUT.parent / "shared" / "golden"))
RELEASE = CHECKOUT / "tests" / "nano" / "release"  # questions about the examples, with their masks
