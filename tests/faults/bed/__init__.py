"""The test bed of the fault rows: a scripted EMR, a healthy patient, and the one runner with its invariants."""
