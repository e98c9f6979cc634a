"""The one deployr command."""
