"""Designs, subjects, data sets and the event tables they are read from and written to."""
