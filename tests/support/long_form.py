"""How long the fault tests look, and what their dice are seeded with.

`make faults LONG=1` looks longer, and lets all nemeses loose for `MINUTES=<n>`; `SEED=<n>` repeats
the run that printed it.
"""

from __future__ import annotations

import os
import random
import secrets

LONG = bool(os.environ.get("FAULTS_LONG"))
MINUTES = float(os.environ.get("FAULTS_MINUTES") or 20)
SEED = int(os.environ.get("FAULTS_SEED") or secrets.randbelow(1_000_000))
DICE = random.Random(SEED)
