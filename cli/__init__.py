"""The command line `epifoundation`: a package of its own, so that `--help` imports no torch."""
