"""Groups of cells and their names: LSI, expression, neighbours, clusters, likeness to reference profiles."""
