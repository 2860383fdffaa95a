"""The page: what a browser gets to see of studies. Rendered here, kept up to date by a small module of our own."""
