"""The comparisons, one module each; every module has `measure(bench)`."""
