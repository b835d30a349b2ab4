"""Tokenised data sets: their columns, the pairing of cells, splits, folders, and the builders of `datasets`."""
