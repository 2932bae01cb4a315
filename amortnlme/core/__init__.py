"""Errors, random streams, transforms, fingerprints and verified files; imports nothing of the package."""
