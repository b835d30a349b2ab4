"""Collators, batch samplers and what the Trainer needs to pre-train and fine-tune EpiFoundation."""
