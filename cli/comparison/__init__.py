"""What ``epifoundation evaluate`` does: methods side by side on the same cells."""
