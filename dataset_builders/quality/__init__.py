"""Quality control of barcodes: what is measured of each, and which are good enough to be cells."""
