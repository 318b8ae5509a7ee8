"""What guests are made of: rows, forms, decoder tables; a folder for each guest."""
