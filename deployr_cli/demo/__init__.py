"""`deployr demo`: train, serve, replay, label and measure, with real processes on this machine."""
