"""The screens of the mock EMR: what a clinician and an operator see, rendered by the server."""
