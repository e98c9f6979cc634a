"""Bundles for other runtimes: ONNX and PMML, made of plain numbers and checked against the bundle's own scores."""
