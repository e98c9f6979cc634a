"""Figures described as data, and drawn from that: PNG, SVG and CSV of one description."""
