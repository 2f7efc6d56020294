"""How long the fault tests look, and what their dice are seeded with.

`make faults LONG=1` looks longer; `SEED=<n>` repeats the run that printed it.
"""

from __future__ import annotations

import os
import random
import secrets

LONG = bool(os.environ.get("FAULTS_LONG"))
SEED = int(os.environ.get("FAULTS_SEED") or secrets.randbelow(1_000_000))
DICE = random.Random(SEED)
