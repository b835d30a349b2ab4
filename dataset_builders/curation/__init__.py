"""From raw files to tokenised cells, as in the appendix of the EpiFoundation paper: resumable, over many files."""
