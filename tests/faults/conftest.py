"""What every run of the fault tests prints first."""

from __future__ import annotations

from support import long_form


def pytest_report_header() -> str:
    form = "long form" if long_form.LONG else "short form (make faults LONG=1 looks longer)"
    return f"faults: {form}, SEED={long_form.SEED} repeats it"
