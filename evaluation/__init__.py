"""Metrics, baselines and reports for EpiFoundation models."""
