"""Ports, errors and the use case: decides, never touches the world."""
