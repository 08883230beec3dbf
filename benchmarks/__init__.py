"""How fast it is: one question a file, measured in one run, results as JSON (``python -m benchmarks``)."""
