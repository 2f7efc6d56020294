"""Redis decides: records, scripts, and the only place that imports redis."""
