"""Speed and accuracy, runnable by anyone: `python -m benchmarks NAME --json`."""
