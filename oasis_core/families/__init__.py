"""What restores pictures: a module per kind of model, and a catalog that recognises files."""
