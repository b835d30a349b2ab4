"""Sparse matrices larger than the memory: stored by rows, written in blocks, joined, brought to other peaks."""
