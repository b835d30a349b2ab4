"""The genome itself: genes, starts of transcription, blacklists, and whether data are of one assembly or another."""
