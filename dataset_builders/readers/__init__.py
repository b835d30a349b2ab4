"""Files that people have, each read as cells by peaks or genes: fragments, BED, 10x output, AnnData and MuData."""
